package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// recipes are the pages whose commands and settings are held to what the program knows.
var recipes = []string{
	"README.md", "acting.md", "akkoma.md", "gotosocial.md", "lemmy.md", "mastodon.md", "matrix.md", "piefed.md", "pixelfed.md", "reporting.md",
}

// TestRecipesShowWhatThereIs shows that every command of the recipes is one, with flags that it has and as many
// arguments as it takes, that every [section] of settings can be read, and that every link leads somewhere.
func TestRecipesShowWhatThereIs(t *testing.T) {
	block := regexp.MustCompile("(?s)```(sh|toml)\n(.*?)```")
	inline := regexp.MustCompile("`(tocsin [^`]+)`")
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for _, name := range recipes {
		path := filepath.Join("..", "..", "docs", name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		var lines []string
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			if m[1] == "sh" {
				lines = append(lines, strings.Split(strings.TrimSpace(m[2]), "\n")...)
				continue
			}
			c := new(config)
			if err := toml.NewDecoder(strings.NewReader(m[2])).DisallowUnknownFields().Decode(c); err != nil {
				t.Errorf("%s: %v in\n%s", name, err, m[2])
			}
			for _, p := range c.Platforms {
				c.Platforms = []platformConfig{p}
				dir := t.TempDir()
				if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(p.Credentials)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, p.Credentials), []byte("token"), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := c.platforms(dir); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		whole := len(lines) // what stands in a sentence may leave arguments out
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			lines = append(lines, m[1])
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, "tocsin ") {
				continue
			}
			args := shellWords(line)[1:]
			root := (&app{out: io.Discard, err: io.Discard}).commands()
			root.SetOut(new(bytes.Buffer))
			cmd, rest, err := root.Find(args)
			if err == nil && cmd == root {
				err = os.ErrNotExist
			}
			if err == nil {
				cmd.InitDefaultHelpFlag()
				if err = cmd.ParseFlags(rest); err == nil && i < whole && cmd.Args != nil {
					err = cmd.Args(cmd, cmd.Flags().Args())
				}
			}
			if err != nil {
				t.Errorf("%s: %s: %v", name, line, err)
			}
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// shellWords splits a line as a shell does, as far as quotation marks go.
func shellWords(line string) (words []string) {
	var b strings.Builder
	quote, some := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, some = r, true
		case quote == 0 && r == ' ':
			if some {
				words = append(words, b.String())
			}
			b.Reset()
			some = false
		default:
			b.WriteRune(r)
			some = true
		}
	}
	if some {
		words = append(words, b.String())
	}
	return words
}
