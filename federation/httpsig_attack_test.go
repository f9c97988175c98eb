package federation

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// forgeCavage signs what it is told to, with a good key: signers need not mean well. It is
// written without the code it tests. list is what headers=".." says, params are more parameters.
func forgeCavage(r *http.Request, list, params string) {
	var lines []string
	for _, name := range strings.Fields(strings.ToLower(list)) {
		value := strings.Join(r.Header.Values(name), ", ")
		switch name {
		case "(request-target)":
			value = strings.ToLower(r.Method) + " " + r.URL.RequestURI()
		case "host":
			value = r.Host
		case "(created)", "(expires)":
			_, value, _ = strings.Cut(params, strings.Trim(name, "()")+"=")
			value, _, _ = strings.Cut(value, ",")
		}
		lines = append(lines, name+": "+value)
	}
	r.Header.Del("Signature-Input")
	r.Header.Set("Signature", fmt.Sprintf(`keyId="%s",headers="%s",signature="%s"%s`, signer, list, rawSign(strings.Join(lines, "\n")), params))
}

// forge9421 does the same for RFC 9421. input is a whole member of Signature-Input.
func forge9421(r *http.Request, input string) {
	list, params, _ := strings.Cut(strings.TrimPrefix(input, "("), ")")
	base := ""
	for _, quoted := range strings.Fields(list) {
		name := strings.Trim(quoted, `"`)
		value := strings.Join(r.Header.Values(name), ", ")
		switch name {
		case "@method":
			value = r.Method
		case "@target-uri":
			value = r.URL.Scheme + "://" + r.URL.Host + r.URL.RequestURI()
		case "@request-target":
			value = r.URL.RequestURI()
		case "@path":
			value = r.URL.EscapedPath()
		case "@query":
			value = "?" + r.URL.RawQuery
		case "@authority", "host":
			value = r.Host
		case "@scheme":
			value = r.URL.Scheme
		}
		base += quoted + ": " + value + "\n"
	}
	base += `"@signature-params": (` + list + ")" + params
	r.Header.Set("Signature-Input", "sig1="+input)
	r.Header.Set("Signature", "sig1=:"+rawSign(base)+":")
}

func rawSign(text string) string {
	sum := sha256.Sum256([]byte(text))
	b, err := rsa.SignPKCS1v15(nil, testKey(), crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func replaceIn(r *http.Request, header, old, new string) {
	v := r.Header.Get(header)
	if !strings.Contains(v, old) {
		panic(fmt.Sprintf("%s has no %q: %s", header, old, v))
	}
	r.Header.Set(header, strings.Replace(v, old, new, 1))
}

const (
	all9421   = `("@method" "@target-uri" "content-digest")`
	allCavage = "(request-target) host date digest"
)

// madeAt writes the parameters of a signature by signer, made so much after signedAt.
func madeAt(d time.Duration) string {
	return fmt.Sprintf(`;created=%d;keyid="%s"`, signedAt.Add(d).Unix(), signer)
}

// TestForgedSignatures checks that the two forgers sign as signRequest does, and what else
// is a good signature. Otherwise a test below could pass for the wrong reason.
func TestForgedSignatures(t *testing.T) {
	for _, c := range []struct {
		name, target string
		forge        func(r *http.Request)
	}{
		{"cavage", "/inbox", func(r *http.Request) { forgeCavage(r, allCavage, "") }},
		{"cavage, capitals in the list", "/inbox", func(r *http.Request) { forgeCavage(r, "(request-target) Host Date Digest", "") }},
		{"cavage, hs2019", "/inbox", func(r *http.Request) { forgeCavage(r, allCavage, `,algorithm="hs2019"`) }},
		{"cavage, unknown parameter", "/inbox", func(r *http.Request) { forgeCavage(r, allCavage, `, opaque="x", n=1`) }},
		{"cavage, created instead of date", "/inbox", func(r *http.Request) {
			r.Header.Del("Date")
			forgeCavage(r, "(request-target) (created) host digest", fmt.Sprintf(",created=%d", signedAt.Unix()))
		}},
		{"cavage, expires", "/inbox", func(r *http.Request) {
			forgeCavage(r, allCavage+" (expires)", fmt.Sprintf(",expires=%d", signedAt.Unix()))
		}},
		{"cavage, more digests", "/inbox", func(r *http.Request) {
			r.Header.Set("Digest", "unixsum=30637, "+strings.Replace(r.Header.Get("Digest"), "SHA-256", "sha-256", 1)+",MD5=x")
			forgeCavage(r, allCavage, "")
		}},
		{"cavage, host in capitals with its port", "/inbox", func(r *http.Request) {
			r.Host = "TOCSIN.example:443"
			forgeCavage(r, allCavage, "")
		}},
		{"9421", "/inbox", func(r *http.Request) { forge9421(r, all9421+madeAt(0)) }},
		{"9421, in parts", "/inbox?x=%2F", func(r *http.Request) {
			forge9421(r, `("@authority" "@scheme" "@method" "@path" "@query" "date" "host" "content-digest" "content-type")`+madeAt(0)+`;alg="rsa-v1_5-sha256"`)
		}},
		{"9421, in parts without a query", "/inbox", func(r *http.Request) {
			forge9421(r, `("@authority" "@method" "@path" "@query" "content-digest")`+madeAt(0))
		}},
		{"9421, request target", "/inbox?x", func(r *http.Request) {
			forge9421(r, `("@authority" "@method" "@request-target" "content-digest")`+madeAt(0))
		}},
		{"9421, unknown parameters", "/inbox", func(r *http.Request) {
			forge9421(r, all9421+madeAt(0)+`;nonce="x";tag="fediverse";x=?0;y=1.5;z=:AA==:;t=token`)
		}},
		{"9421, expires", "/inbox", func(r *http.Request) {
			forge9421(r, all9421+madeAt(0)+fmt.Sprintf(";expires=%d", signedAt.Unix()))
		}},
		{"9421, sha-512 and others", "/inbox", func(r *http.Request) {
			sum := sha512.Sum512([]byte(signedBody))
			r.Header.Set("Content-Digest", r.Header.Get("Content-Digest")+", md5=:AA==:, sha-512=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
			forge9421(r, all9421+madeAt(0))
		}},
		{"9421, only sha-512", "/inbox", func(r *http.Request) {
			sum := sha512.Sum512([]byte(signedBody))
			r.Header.Set("Content-Digest", "sha-512=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
			forge9421(r, all9421+madeAt(0))
		}},
		{"9421, the second of two", "/inbox", func(r *http.Request) {
			forge9421(r, all9421+madeAt(0))
			r.Header.Set("Signature-Input", `proxy=("@authority");created=1;keyid="p";alg="hmac-sha256", `+r.Header.Get("Signature-Input"))
			r.Header.Set("Signature", `proxy=:AAAA:, `+r.Header.Get("Signature"))
		}},
		{"9421, the second of two, the first of another form", "/inbox", func(r *http.Request) {
			forge9421(r, all9421+madeAt(0))
			r.Header["Signature-Input"] = []string{"other=1", r.Header.Get("Signature-Input")}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := schemeCavage
			if strings.HasPrefix(c.name, "9421") {
				s = scheme9421
			}
			r := signedRequest(t, s, "POST", signedFor+c.target, signedBody)
			c.forge(r)
			if err := checkSigned(r, signedBody, signedFor, &testKey().PublicKey, signedAt); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSignatureAttacks has what must not pass, each row from a request that passes. A row
// without forge in it is what somebody on the way could do.
func TestSignatureAttacks(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// what is received, and where and when
	type reception struct {
		*http.Request
		body, origin string
		key          *rsa.PublicKey
		now          time.Time
	}
	const both = "both"
	for _, c := range []struct {
		name, scheme, says string
		do                 func(r *reception)
	}{
		// The request is not the one that was signed.
		{"body altered", both, "does not fit the body", func(r *reception) { r.body = `{"type":"Delete"}` }},
		{"body cut off", both, "does not fit the body", func(r *reception) { r.body = "" }},
		{"body longer", both, "does not fit the body", func(r *reception) { r.body += " " }},
		{"body and digest altered", "cavage", "does not fit the request", func(r *reception) {
			r.body = "{}"
			sum := sha256.Sum256([]byte(r.body))
			r.Header.Set("Digest", "SHA-256="+base64.StdEncoding.EncodeToString(sum[:]))
		}},
		{"body and digest altered", "9421", "does not fit the request", func(r *reception) {
			r.body = "{}"
			sum := sha256.Sum256([]byte(r.body))
			r.Header.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
		}},
		{"method altered", both, "does not fit the request", func(r *reception) { r.Method = "PUT" }},
		{"method in lower case", both, "capitals|does not fit", func(r *reception) { r.Method = "post" }},
		{"path altered", both, "does not fit the request", func(r *reception) { r.URL.Path = "/users/bob/inbox" }},
		{"path decoded", both, "does not fit the request", func(r *reception) { r.RequestURI = "/users/alice/inbox" }},
		{"query added", both, "does not fit the request", func(r *reception) { r.URL.RawQuery = "x=1" }},
		{"empty query added", both, "does not fit the request", func(r *reception) { r.URL.ForceQuery = true }},
		{"target is a whole address", both, "is not a path", func(r *reception) { r.RequestURI = signedFor + "/users%2Falice/inbox" }},
		{"target is a star", both, "is not a path", func(r *reception) { r.RequestURI = "*" }},
		{"target has a line break", both, "line break|does not fit", func(r *reception) { r.RequestURI = "/users%2Falice/inbox\nhost: x" }},
		{"content type altered", both, "does not fit the request", func(r *reception) { r.Header.Set("Content-Type", "text/html") }},
		{"content type taken away", both, "does not have", func(r *reception) { r.Header.Del("Content-Type") }},

		// It is meant for somebody else.
		{"host altered", both, "request is for host", func(r *reception) { r.Host = "other.example" }},
		{"host of another port", both, "request is for host", func(r *reception) { r.Host = "tocsin.example:8443" }},
		{"host missing", both, "request is for host", func(r *reception) { r.Host = "" }},
		{"host not ours", both, "request is for host", func(r *reception) { r.origin = "https://other.example" }},
		{"forwarded, with our host put in", both, "does not fit the request", func(r *reception) {
			r.Host, r.origin = "other.example", "https://other.example"
		}},
		{"http instead of https", "9421", "does not fit the request", func(r *reception) { r.origin = "http://tocsin.example" }},
		{"own origin is not one", both, "own origin", func(r *reception) { r.origin = "tocsin.example" }},
		{"own origin has a path", both, "own origin", func(r *reception) { r.origin = "https://tocsin.example/x" }},
		{"own origin has no host", both, "own origin", func(r *reception) { r.origin = "https://" }},

		// It is of another time.
		{"stale", both, "too long ago", func(r *reception) { r.now = signedAt.Add(signaturePast + 1) }},
		{"future", both, "in the future", func(r *reception) { r.now = signedAt.Add(-signatureLead - 1) }},
		{"date altered", "cavage", "does not fit the request", func(r *reception) {
			r.Header.Set("Date", signedAt.Add(time.Minute).Format(http.TimeFormat))
		}},
		{"date missing", "cavage", "0 Date headers", func(r *reception) { r.Header.Del("Date") }},
		{"two dates", "cavage", "2 Date headers", func(r *reception) { r.Header.Add("Date", r.Header.Get("Date")) }},
		{"date in another form", "cavage", "is not like", func(r *reception) { r.Header.Set("Date", signedAt.Format(time.RFC3339)) }},
		{"date not covered", "cavage", "neither date nor (created)", func(r *reception) {
			forgeCavage(r.Request, "(request-target) host digest", "")
		}},
		{"created given, not covered", "cavage", "neither date nor (created)", func(r *reception) {
			forgeCavage(r.Request, "(request-target) host digest", fmt.Sprintf(",created=%d", signedAt.Unix()))
		}},
		{"stale created, good date", "cavage", "too long ago", func(r *reception) {
			forgeCavage(r.Request, allCavage+" (created)", fmt.Sprintf(",created=%d", signedAt.Add(-signaturePast-time.Second).Unix()))
		}},
		{"good created, stale date", "cavage", "too long ago", func(r *reception) {
			r.Header.Set("Date", signedAt.Add(-signaturePast-time.Second).Format(http.TimeFormat))
			forgeCavage(r.Request, allCavage+" (created)", fmt.Sprintf(",created=%d", signedAt.Unix()))
		}},
		{"good created, stale date", "9421", "too long ago", func(r *reception) {
			r.Header.Set("Date", signedAt.Add(-signaturePast-time.Second).Format(http.TimeFormat))
			forge9421(r.Request, `("@method" "@target-uri" "content-digest" "date")`+madeAt(0))
		}},
		{"created covered, not given", "cavage", "does not give it", func(r *reception) { forgeCavage(r.Request, allCavage+" (created)", "") }},
		{"created covered with rsa-sha256", "cavage", "which rsa-sha256 cannot", func(r *reception) {
			forgeCavage(r.Request, allCavage+" (created)", fmt.Sprintf(`,created=%d,algorithm="rsa-sha256"`, signedAt.Unix()))
		}},
		{"created with a sign", "cavage", "seconds since 1970", func(r *reception) {
			forgeCavage(r.Request, allCavage+" (created)", fmt.Sprintf(",created=+%d", signedAt.Unix()))
		}},
		{"created altered", "cavage", "does not fit the request", func(r *reception) {
			forgeCavage(r.Request, allCavage+" (created)", fmt.Sprintf(",created=%d", signedAt.Unix()))
			replaceIn(r.Request, "Signature", fmt.Sprint(signedAt.Unix()), fmt.Sprint(signedAt.Unix()-1))
		}},
		{"created altered", "9421", "does not fit the request", func(r *reception) {
			replaceIn(r.Request, "Signature-Input", fmt.Sprint(signedAt.Unix()), fmt.Sprint(signedAt.Unix()-1))
		}},
		{"created not covered", "9421", "when it was created", func(r *reception) { forge9421(r.Request, all9421+`;keyid="`+signer+`"`) }},
		{"created is a string", "9421", "when it was created", func(r *reception) { forge9421(r.Request, all9421+`;created="1";keyid="x"`) }},
		{"created is not whole", "9421", "when it was created", func(r *reception) { forge9421(r.Request, all9421+`;created=1.5;keyid="x"`) }},
		{"created before 1970", "9421", "too long ago", func(r *reception) { forge9421(r.Request, all9421+`;created=-1;keyid="x"`) }},
		{"created at the end of time", "9421", "in the future", func(r *reception) { forge9421(r.Request, all9421+`;created=99999999999999;keyid="x"`) }},
		{"expired", "9421", "expired", func(r *reception) {
			forge9421(r.Request, all9421+madeAt(0)+fmt.Sprintf(";expires=%d", signedAt.Unix()-1))
		}},
		{"expires is a string", "9421", "expires", func(r *reception) { forge9421(r.Request, all9421+madeAt(0)+`;expires="x"`) }},
		{"expired", "cavage", "expired", func(r *reception) {
			forgeCavage(r.Request, allCavage+" (expires)", fmt.Sprintf(",expires=%d", signedAt.Unix()-1))
		}},
		{"expired, not covered", "cavage", "expired", func(r *reception) {
			forgeCavage(r.Request, allCavage, fmt.Sprintf(",expires=%d", signedAt.Unix()-1))
		}},
		{"end moved", "cavage", "does not fit the request", func(r *reception) {
			forgeCavage(r.Request, allCavage+" (expires)", fmt.Sprintf(",expires=%d", signedAt.Unix()-1))
			replaceIn(r.Request, "Signature", fmt.Sprint(signedAt.Unix()-1), fmt.Sprint(signedAt.Unix()+1))
		}},
		{"expires has a fraction", "cavage", "expires", func(r *reception) { forgeCavage(r.Request, allCavage, ",expires=1.5") }},

		// It covers too little.
		{"digest not covered", "cavage", "does not cover digest", func(r *reception) { forgeCavage(r.Request, "(request-target) host date", "") }},
		{"digest not covered, no body", "cavage", "does not cover digest", func(r *reception) {
			r.body = ""
			forgeCavage(r.Request, "(request-target) host date", "")
		}},
		{"digest not covered, PUT with a body", "cavage", "does not cover digest", func(r *reception) {
			r.Method = "PUT"
			forgeCavage(r.Request, "(request-target) host date", "")
		}},
		{"digest not covered, GET with a body", "9421", "does not cover content-digest", func(r *reception) {
			r.Method = "GET"
			forge9421(r.Request, `("@method" "@target-uri")`+madeAt(0))
		}},
		{"content digest instead of digest", "cavage", "does not cover digest", func(r *reception) {
			forgeCavage(r.Request, "(request-target) host date content-digest", "")
		}},
		{"digest not covered", "9421", "does not cover content-digest", func(r *reception) { forge9421(r.Request, `("@method" "@target-uri")`+madeAt(0)) }},
		{"digest not covered, no body", "9421", "does not cover content-digest", func(r *reception) {
			r.body = ""
			forge9421(r.Request, `("@method" "@target-uri")`+madeAt(0))
		}},
		{"digest instead of content digest", "9421", "does not cover content-digest", func(r *reception) {
			forge9421(r.Request, `("@method" "@target-uri" "digest")`+madeAt(0))
		}},
		{"target not covered", "cavage", "does not cover (request-target)", func(r *reception) { forgeCavage(r.Request, "host date digest", "") }},
		{"host not covered", "cavage", "does not cover host", func(r *reception) { forgeCavage(r.Request, "(request-target) date digest", "") }},
		{"only the date, as without a list", "cavage", "lists no headers", func(r *reception) {
			forgeCavage(r.Request, "date", "")
			replaceIn(r.Request, "Signature", `headers="date",`, "")
		}},
		{"empty list", "cavage", "lists no headers", func(r *reception) { forgeCavage(r.Request, "", "") }},
		{"only the date", "cavage", "does not cover (request-target)", func(r *reception) { forgeCavage(r.Request, "date", "") }},
		{"nothing covered", "9421", "does not cover @method", func(r *reception) { forge9421(r.Request, "()"+madeAt(0)) }},
		{"method not covered", "9421", "does not cover @method", func(r *reception) { forge9421(r.Request, `("@target-uri" "content-digest")`+madeAt(0)) }},
		{"target not covered", "9421", "neither @target-uri nor", func(r *reception) { forge9421(r.Request, `("@method" "content-digest")`+madeAt(0)) }},
		{"authority not covered", "9421", "neither @target-uri nor", func(r *reception) {
			forge9421(r.Request, `("@method" "@path" "@query" "host" "@scheme" "content-digest")`+madeAt(0))
		}},
		{"path not covered", "9421", "neither @target-uri nor", func(r *reception) {
			forge9421(r.Request, `("@method" "@authority" "@query" "content-digest")`+madeAt(0))
		}},
		{"query not covered", "9421", "neither @target-uri nor", func(r *reception) {
			forge9421(r.Request, `("@method" "@authority" "@path" "content-digest")`+madeAt(0))
		}},

		// The digest is not one.
		{"digest missing", "cavage", "no Digest header", func(r *reception) { r.Header.Del("Digest") }},
		{"digest missing", "9421", "no Content-Digest header", func(r *reception) { r.Header.Del("Content-Digest") }},
		{"two digests", "cavage", "Digest header", func(r *reception) { r.Header.Add("Digest", r.Header.Get("Digest")) }},
		{"two digests", "9421", "Content-Digest header", func(r *reception) { r.Header.Add("Content-Digest", r.Header.Get("Content-Digest")) }},
		{"digest of other bytes", "cavage", "does not fit the body", func(r *reception) {
			sum := sha256.Sum256(nil)
			r.Header.Set("Digest", "SHA-256="+base64.StdEncoding.EncodeToString(sum[:]))
			forgeCavage(r.Request, allCavage, "")
		}},
		{"two digests in one, one of other bytes", "cavage", "does not fit the body", func(r *reception) {
			sum := sha256.Sum256(nil)
			r.Header.Set("Digest", r.Header.Get("Digest")+",SHA-256="+base64.StdEncoding.EncodeToString(sum[:]))
			forgeCavage(r.Request, allCavage, "")
		}},
		{"digest of other bytes", "9421", "does not fit the body", func(r *reception) {
			sum := sha256.Sum256(nil)
			r.Header.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
			forge9421(r.Request, all9421+madeAt(0))
		}},
		{"good sha-256, sha-512 of other bytes", "9421", "does not fit the body", func(r *reception) {
			sum := sha512.Sum512(nil)
			r.Header.Set("Content-Digest", r.Header.Get("Content-Digest")+", sha-512=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
			forge9421(r.Request, all9421+madeAt(0))
		}},
		{"only a weak digest", "cavage", "no SHA-256", func(r *reception) {
			r.Header.Set("Digest", "MD5=1B2M2Y8AsgTpgAmY7PhCfg==")
			forgeCavage(r.Request, allCavage, "")
		}},
		{"only a weak digest", "9421", "neither sha-256", func(r *reception) {
			r.Header.Set("Content-Digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:")
			forge9421(r.Request, all9421+madeAt(0))
		}},
		{"digest is cut off", "cavage", "does not fit the body", func(r *reception) { r.Header.Set("Digest", "SHA-256=") }},
		{"digest is not a dictionary", "9421", "cannot read Content-Digest", func(r *reception) { r.Header.Set("Content-Digest", "SHA-256=x") }},
		{"digest is a list", "9421", "does not fit the body", func(r *reception) { r.Header.Set("Content-Digest", "sha-256=(:AA==:)") }},
		{"digest is true", "9421", "does not fit the body", func(r *reception) { r.Header.Set("Content-Digest", "sha-256") }},
		{"digest is too long", both, "too many", func(r *reception) {
			r.Header.Set("Digest", strings.Repeat("x", maxSignatureField+1))
			r.Header.Set("Content-Digest", strings.Repeat("x", maxSignatureField+1))
		}},

		// The key is not one.
		{"key of somebody else", both, "does not fit the request", func(r *reception) { r.key = &other.PublicKey }},
		{"key too short", both, "1024 bits", func(r *reception) { r.key = &rsa.PublicKey{N: new(big.Int).Rsh(r.key.N, 1024), E: 65537} }},
		{"key too long", both, "8193 bits", func(r *reception) { r.key = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8192), E: 65537} }},
		{"key of another size", both, "does not fit the request", func(r *reception) {
			r.key = &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(r.key.N, 1024), 0, 1), E: 65537}
		}},
		{"key is even", both, "does not fit the request", func(r *reception) { r.key = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537} }},
		{"exponent is 1", both, "does not fit the request", func(r *reception) { r.key = &rsa.PublicKey{N: r.key.N, E: 1} }},
		{"no key", both, "no RSA key", func(r *reception) { r.key = nil }},
		{"empty key", both, "no RSA key", func(r *reception) { r.key = &rsa.PublicKey{} }},

		// The signature is not one.
		{"signature truncated", "cavage", "base64", func(r *reception) {
			v := r.Header.Get("Signature")
			r.Header.Set("Signature", v[:len(v)-6]+`"`)
		}},
		{"signature in another spelling", "cavage", "base64", func(r *reception) {
			// The last digit of 256 bytes has four bits that mean nothing.
			v := r.Header.Get("Signature")
			end := strings.LastIndex(v, `=="`)
			const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
			r.Header.Set("Signature", v[:end-1]+string(digits[strings.IndexByte(digits, v[end-1])+1])+v[end:])
		}},
		{"signature shorter", "cavage", "does not fit the request", func(r *reception) {
			v := r.Header.Get("Signature")
			r.Header.Set("Signature", v[:len(v)-9]+`"`)
		}},
		{"signature shorter", "9421", "does not fit the request", func(r *reception) { r.Header.Set("Signature", "sig1=:AAAA:") }},
		{"signature empty", "9421", "not a byte sequence", func(r *reception) { r.Header.Set("Signature", "sig1=::") }},
		{"signature empty", "cavage", "base64", func(r *reception) { r.Header.Set("Signature", `keyId="x",headers="date",signature=""`) }},
		{"signature is a string", "9421", "not a byte sequence", func(r *reception) { r.Header.Set("Signature", `sig1="AAAA"`) }},
		{"signature altered", "9421", "does not fit the request", func(r *reception) {
			v := []byte(r.Header.Get("Signature"))
			if v[len(v)/2] == 'A' {
				v[len(v)/2] = 'B'
			} else {
				v[len(v)/2] = 'A'
			}
			r.Header.Set("Signature", string(v))
		}},
		{"no signature", both, "not signed", func(r *reception) { r.Header.Del("Signature"); r.Header.Del("Signature-Input") }},
		{"no Signature-Input", "9421", `name="value"|key id`, func(r *reception) { r.Header.Del("Signature-Input") }},
		{"no Signature", "9421", "does not have it", func(r *reception) { r.Header.Del("Signature") }},
		{"empty Signature-Input", "9421", "empty", func(r *reception) { r.Header.Set("Signature-Input", "") }},
		{"Signature-Input beside a draft signature", "cavage", "cannot read Signature", func(r *reception) {
			r.Header.Set("Signature-Input", `sig1=("date");created=1;keyid="x"`)
		}},
		{"labels differ", "9421", "does not have it", func(r *reception) { replaceIn(r.Request, "Signature", "sig1=", "sig2=") }},
		{"labels swapped", "9421", "does not fit the request", func(r *reception) {
			r.Header.Set("Signature-Input", r.Header.Get("Signature-Input")+", "+strings.Replace(r.Header.Get("Signature-Input"), "sig1", "sig2", 1))
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), "sig1", "sig2", 1)+", sig1=:AAAA:")
		}},
		{"a label twice, the last is garbage", "9421", "does not fit the request", func(r *reception) { r.Header.Add("Signature", "sig1=:AAAA:") }},
		{"input is not a list", "9421", "not a list", func(r *reception) { r.Header.Set("Signature-Input", `sig1="@method"`) }},
		{"too many labels", "9421", "5 signatures", func(r *reception) {
			r.Header.Set("Signature-Input", "a=(), b=(), c=(), d=(), "+r.Header.Get("Signature-Input"))
		}},
		{"two Signature headers", "cavage", "2 Signature headers", func(r *reception) { r.Header.Add("Signature", r.Header.Get("Signature")) }},
		{"oversize", "cavage", "longer than", func(r *reception) {
			r.Header.Set("Signature", r.Header.Get("Signature")+`,x="`+strings.Repeat("x", maxSignatureField)+`"`)
		}},
		{"oversize input", "9421", "longer than", func(r *reception) {
			r.Header.Set("Signature-Input", r.Header.Get("Signature-Input")+`;x="`+strings.Repeat("x", maxSignatureField)+`"`)
		}},
		{"oversize in pieces", "9421", "longer than", func(r *reception) {
			for range 5 {
				r.Header.Add("Signature", "x=:"+strings.Repeat("A", 1000)+":")
			}
		}},

		// What is covered can be read in two ways.
		{"target twice", "cavage", "twice", func(r *reception) { forgeCavage(r.Request, allCavage+" (request-target)", "") }},
		{"date twice, once in capitals", "cavage", "twice", func(r *reception) { forgeCavage(r.Request, allCavage+" DATE", "") }},
		{"method twice", "9421", "twice", func(r *reception) {
			forge9421(r.Request, `("@method" "@target-uri" "content-digest" "@method")`+madeAt(0))
		}},
		{"covered header twice", "cavage", "has 2 times", func(r *reception) {
			r.Header["Accept"] = []string{"a", "b"}
			forgeCavage(r.Request, allCavage+" accept", "")
		}},
		{"covered header twice", "9421", "has 2 times", func(r *reception) {
			r.Header["Accept"] = []string{"a", "b"}
			forge9421(r.Request, `("@method" "@target-uri" "content-digest" "accept")`+madeAt(0))
		}},
		{"covered header missing", both, "does not have", func(r *reception) { r.Header.Del("Content-Type") }},
		{"covered header with a line break", "cavage", "line break", func(r *reception) {
			r.Header.Set("Accept", "x\nhost: other.example")
			forgeCavage(r.Request, allCavage+" accept", "")
		}},
		{"header named in capitals", "9421", "not supported", func(r *reception) {
			forge9421(r.Request, `("@method" "@target-uri" "content-digest" "Date")`+madeAt(0))
		}},
		{"too much covered", "cavage", "more than 32", func(r *reception) {
			forgeCavage(r.Request, allCavage+manyNames(""), "")
		}},
		{"too much covered", "9421", "more than 32", func(r *reception) {
			forge9421(r.Request, `("@method"`+manyNames(`"`)+")"+madeAt(0))
		}},
		{"unknown pseudo-header", "cavage", "not a header", func(r *reception) { forgeCavage(r.Request, allCavage+" (x)", "") }},
		{"derived component in the draft", "cavage", "not a header", func(r *reception) { forgeCavage(r.Request, allCavage+" @method", "") }},
		{"unknown derived component", "9421", "not supported", func(r *reception) {
			forge9421(r.Request, `("@method" "@target-uri" "content-digest" "@x")`+madeAt(0))
		}},
		{"signature-params covered", "9421", "not supported", func(r *reception) {
			forge9421(r.Request, `("@method" "@target-uri" "content-digest" "@signature-params")`+madeAt(0))
		}},
		{"empty component", "9421", "not supported", func(r *reception) { forge9421(r.Request, `("@method" "@target-uri" "")`+madeAt(0)) }},
		{"component is a token", "9421", "not a string", func(r *reception) { forge9421(r.Request, `(date "@method")`+madeAt(0)) }},
		{"component with a parameter", "9421", "parameters", func(r *reception) {
			forge9421(r.Request, `("@method" "@target-uri" "content-digest";key="sha-256")`+madeAt(0))
		}},
		{"one parameter of the query", "9421", "parameters", func(r *reception) {
			forge9421(r.Request, `("@method" "@authority" "@path" "@query-param";name="x")`+madeAt(0))
		}},
		{"a method from another request", "9421", "parameters", func(r *reception) { forge9421(r.Request, `("@method";req "@target-uri")`+madeAt(0)) }},

		// Parameters.
		{"key id missing", "cavage", "key id", func(r *reception) { replaceIn(r.Request, "Signature", "keyId=", "keyid=") }},
		{"key id twice", "cavage", "keyId twice", func(r *reception) {
			r.Header.Set("Signature", r.Header.Get("Signature")+`,keyId="https://other.example/actor"`)
		}},
		{"headers twice", "cavage", "headers twice", func(r *reception) { r.Header.Set("Signature", `headers="date",`+r.Header.Get("Signature")) }},
		{"key id missing", "9421", "no keyid", func(r *reception) {
			forge9421(r.Request, all9421+fmt.Sprintf(";created=%d", signedAt.Unix()))
		}},
		{"key id altered", "9421", "does not fit the request", func(r *reception) { replaceIn(r.Request, "Signature-Input", "hashes.example", "others.example") }},
		{"key id twice", "9421", "does not fit the request", func(r *reception) {
			r.Header.Set("Signature-Input", r.Header.Get("Signature-Input")+`;keyid="https://other.example/actor"`)
		}},
		{"key id empty", "9421", "key id", func(r *reception) { forge9421(r.Request, all9421+`;created=1;keyid=""`) }},
		{"key id too long", "9421", "key id", func(r *reception) {
			forge9421(r.Request, all9421+`;created=1;keyid="`+strings.Repeat("x", 513)+`"`)
		}},
		{"key id with a space", "cavage", "key id", func(r *reception) { replaceIn(r.Request, "Signature", "actor#", "actor #") }},
		{"key id with a quote", "9421", "key id", func(r *reception) { forge9421(r.Request, all9421+`;created=1;keyid="a\"b"`) }},
		{"quote not closed", "cavage", "not closed", func(r *reception) { r.Header.Set("Signature", `keyId="x`) }},
		{"escape in a quote", "cavage", `name="value"`, func(r *reception) { replaceIn(r.Request, "Signature", "actor#", `actor\"#`) }},
		{"no comma", "cavage", `name="value"`, func(r *reception) { replaceIn(r.Request, "Signature", `",`, `" `) }},
		{"no value", "cavage", `name="value"`, func(r *reception) { r.Header.Set("Signature", "keyId") }},
		{"comma at the end", "cavage", `name="value"`, func(r *reception) { r.Header.Set("Signature", r.Header.Get("Signature")+",") }},
		{"blank", "cavage", `name="value"`, func(r *reception) { r.Header.Set("Signature", " ") }},

		// Algorithms.
		{"hmac", "cavage", "algorithm", func(r *reception) { replaceIn(r.Request, "Signature", "rsa-sha256", "hmac-sha256") }},
		{"sha1", "cavage", "algorithm", func(r *reception) { replaceIn(r.Request, "Signature", "rsa-sha256", "rsa-sha1") }},
		{"ed25519", "cavage", "algorithm", func(r *reception) { replaceIn(r.Request, "Signature", "rsa-sha256", "ed25519") }},
		{"none", "cavage", "algorithm", func(r *reception) { replaceIn(r.Request, "Signature", "rsa-sha256", "none") }},
		{"empty", "cavage", "algorithm", func(r *reception) { replaceIn(r.Request, "Signature", "rsa-sha256", "") }},
		{"hmac", "9421", "algorithm", func(r *reception) { forge9421(r.Request, all9421+madeAt(0)+`;alg="hmac-sha256"`) }},
		{"pss", "9421", "algorithm", func(r *reception) { forge9421(r.Request, all9421+madeAt(0)+`;alg="rsa-pss-sha512"`) }},
		{"ed25519", "9421", "algorithm", func(r *reception) { forge9421(r.Request, all9421+madeAt(0)+`;alg="ed25519"`) }},
		{"none", "9421", "algorithm", func(r *reception) { forge9421(r.Request, all9421+madeAt(0)+`;alg="none"`) }},
		{"a token", "9421", "algorithm", func(r *reception) { forge9421(r.Request, all9421+madeAt(0)+`;alg=rsa-v1_5-sha256`) }},
		{"bytes", "9421", "algorithm", func(r *reception) { forge9421(r.Request, all9421+madeAt(0)+`;alg=:AAAA:`) }},
	} {
		schemes := []string{c.scheme}
		if c.scheme == both {
			schemes = []string{"cavage", "9421"}
		}
		for _, name := range schemes {
			t.Run(name+", "+c.name, func(t *testing.T) {
				r := &reception{
					signedRequest(t, bothSchemes[name], "POST", signedFor+"/users%2Falice/inbox", signedBody),
					signedBody, signedFor, &testKey().PublicKey, signedAt,
				}
				if err := checkSigned(r.Request, r.body, r.origin, r.key, r.now); err != nil {
					t.Fatalf("before: %v", err)
				}
				c.do(r)
				err := checkSigned(r.Request, r.body, r.origin, r.key, r.now)
				if err == nil {
					t.Fatalf("verified: %+v", r.Request)
				}
				if !slices.ContainsFunc(strings.Split(c.says, "|"), func(w string) bool { return strings.Contains(err.Error(), w) }) {
					t.Errorf("got %v, want an error that says %q", err, c.says)
				}
				if errors.Is(err, errUnsigned) != (c.name == "no signature") {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func manyNames(quote string) string {
	var b strings.Builder
	for i := range maxCovered {
		fmt.Fprintf(&b, " %sx%d%s", quote, i, quote)
	}
	return b.String()
}
