// A peer that is not ours: a Fedify server on loopback, driven over stdin and stdout.
//
//	node peer.mjs HOST [SCHEME]
//
// HOST is 127.0.0.1 or localhost. With a SCHEME, rfc9421 or cavage, requests that are signed
// in the other are answered with 401, as servers do that know only one.
//
// It says {"event":"ready",...} once it listens, then reads commands, one JSON object a line,
// and writes replies and events, one JSON object a line. It ends when its input does. What a
// reply or event says was verified is what Fedify's own traces say: this program checks
// nothing by itself.
//
// Commands. A reply carries the command's "n" and either "error" or the result; "requests" are the
// requests sent on the way, each with method, url, scheme ("rfc9421", "cavage" or "") and status.
//
//	lookup  {handle | url}            find an actor: WebFinger for a handle (@name@host), then its document
//	fetch   {url, scheme?}            GET a document, signed if there is a scheme; what was got without one,
//	                                  here and everywhere else, is remembered for five minutes
//	walk    {url, scheme?}            read a collection to its end, following first and next
//	follow  {actor, scheme}           look the actor up and send a Follow to its inbox -> {id}
//	undo    {follow, scheme}          send an Undo of the Follow with that id -> {id}
//	send    {to, activity, scheme}    send an activity given in JSON, as Fedify writes it: what it has no
//	                                  class for is lost; id and actor are filled in if absent -> {id}
//	post    {inbox, body, scheme}     send the bytes of body as they are, signed -> {status, response}
//	verify  {statement}               check the proofs of a document -> {verified, keys}
//
// Events.
//
//	refused {method, path, scheme}                                        for its scheme
//	request {method, path, scheme, headers, status}                       somebody read from here
//	inbox   {path, scheme, headers, body, status, response, type, id, actor,
//	         verified,                                                     whether it counts as its actor's:
//	         ld, proofs: [{verified, key}], http: {verified, key, reason}, by the first of these that holds
//	         listened,                                                     its class, if it came through
//	         page: {class, id, partOf, startIndex, items, error},          the object, as Fedify reads it
//	         statements: [{id, verified, keys, error}],                    of the page
//	         requests, log}
import { AsyncLocalStorage } from "node:async_hooks";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createFederation, MemoryKvStore, signRequest, verifyObject, verifyProof } from "@fedify/fedify";
import * as vocab from "@fedify/fedify/vocab";
import { configure } from "@logtape/logtape";
import { SpanStatusCode } from "@opentelemetry/api";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";

const [host, onlyScheme] = process.argv.slice(2);
const name = "fedify";
const cavage = "draft-cavage-http-signatures-12";
const schemes = { rfc9421: "rfc9421", cavage };

// What is going on at the moment: one request or one command. Spans, log lines and requests
// that belong to it are gathered here.
const current = new AsyncLocalStorage();
const gather = () => ({ requests: [], spans: [], log: [] });

const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const message = (error) => (error instanceof Error ? `${error.name}: ${error.message}` : String(error));

await configure({
  contextLocalStorage: new AsyncLocalStorage(),
  sinks: {
    gather(record) {
      const line = record.message.map((part) => {
        if (typeof part === "string") return part;
        return part instanceof Error ? message(part) : JSON.stringify(part) ?? String(part);
      }).join("");
      current.getStore()?.log.push(`${record.level}: ${record.category.join(".")}: ${line.slice(0, 1000)}`);
    },
  },
  loggers: [
    { category: ["logtape", "meta"], sinks: ["gather"], lowestLevel: "error" },
    { category: "fedify", sinks: ["gather"], lowestLevel: "debug" },
  ],
});

const tracerProvider = new BasicTracerProvider({
  spanProcessors: [{
    onStart() {},
    onEnd: (span) => current.getStore()?.spans.push(span),
    forceFlush: async () => {},
    shutdown: async () => {},
  }],
});

function schemeOf(headers) {
  if (headers.has("signature-input")) return "rfc9421";
  return headers.has("signature") ? "cavage" : "";
}

// Fedify asks WebFinger for a handle over https only; on loopback there is no certificate.
const realFetch = globalThis.fetch;
globalThis.fetch = async (input, init) => {
  let request = new Request(input, init);
  const url = new URL(request.url);
  if (url.protocol === "https:" && url.hostname === host && url.pathname === "/.well-known/webfinger") {
    url.protocol = "http:";
    request = new Request(url, request);
  }
  const seen = { method: request.method, url: request.url, scheme: schemeOf(request.headers), status: 0 };
  current.getStore()?.requests.push(seen);
  const response = await realFetch(request, { redirect: init?.redirect });
  seen.status = response.status;
  return response;
};

const server = createServer();
await new Promise((resolve, reject) => server.on("error", reject).listen(0, "127.0.0.1", resolve));
const origin = `http://${host}:${server.address().port}`;

const subtle = globalThis.crypto.subtle;
const rsa = { name: "RSASSA-PKCS1-v1_5", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" };
const keys = [
  await subtle.generateKey(rsa, true, ["sign", "verify"]),
  await subtle.generateKey("Ed25519", true, ["sign", "verify"]),
];

// What it keeps of others, but for the scheme that a host took last: that is for who drives
// this program to say. Fedify would turn to the other one after a 404.
class Memory extends MemoryKvStore {
  async set(key, value, options) {
    if (key[0] !== "scheme") await super.set(key, value, options);
  }
}

// One federation for each scheme that it knocks with first; all share the keys.
function federation(firstKnock) {
  const f = createFederation({
    kv: new Memory(), kvPrefixes: { httpMessageSignaturesSpec: ["scheme"] },
    origin, allowPrivateAddress: true, firstKnock, tracerProvider,
  });
  f.setActorDispatcher("/users/{identifier}", async (ctx, identifier) => {
    if (identifier !== name) return null;
    const pairs = await ctx.getActorKeyPairs(identifier);
    return new vocab.Service({
      id: ctx.getActorUri(identifier),
      preferredUsername: identifier,
      name: "Fedify",
      inbox: ctx.getInboxUri(identifier),
      outbox: ctx.getOutboxUri(identifier),
      followers: ctx.getFollowersUri(identifier),
      endpoints: new vocab.Endpoints({ sharedInbox: ctx.getInboxUri() }),
      publicKey: pairs[0].cryptographicKey,
      assertionMethods: pairs.map((pair) => pair.multikey),
    });
  }).setKeyPairsDispatcher((_, identifier) => (identifier === name ? keys : []));
  f.setOutboxDispatcher("/users/{identifier}/outbox", () => ({ items: [] }));
  f.setFollowersDispatcher("/users/{identifier}/followers", () => ({ items: [] }));
  f.setInboxListeners("/users/{identifier}/inbox", "/inbox")
    .on(vocab.Activity, (ctx, activity) => received(ctx, activity))
    .onError((_, error) => current.getStore()?.log.push(`error: listener: ${message(error)}`));
  return f;
}
const federations = { rfc9421: federation("rfc9421"), cavage: federation(cavage) };

function context(scheme = "rfc9421") {
  if (!(scheme in schemes)) throw new Error(`scheme is ${scheme}, want rfc9421 or cavage`);
  return federations[scheme].createContext(new URL(origin), undefined);
}

// verify asks Fedify whether all proofs of a document hold and whether its actor made them.
// verifyObject alone would pass a document with neither proof nor actor.
async function verify(ctx, document) {
  try {
    const object = await verifyObject(vocab.Activity, document, ctx);
    const { actorId } = object ?? {};
    const keys = [];
    for await (const proof of (object ?? await vocab.Activity.fromJsonLd(document, ctx)).getProofs(ctx)) {
      const key = await verifyProof(document, proof, ctx);
      if (key != null) keys.push({ id: key.id?.href, controller: key.controllerId?.href });
    }
    return { verified: actorId != null && keys.some(({ controller }) => controller === actorId.href), keys };
  } catch (error) {
    return { verified: false, keys: [], error: message(error) };
  }
}

// received runs in an inbox request, after Fedify has verified and parsed the activity.
async function received(ctx, activity) {
  const work = current.getStore();
  work.event.listened = activity.constructor.name;
  const raw = JSON.parse(work.event.body).object;
  if (activity instanceof vocab.Announce && typeof raw === "object" && raw != null) {
    // What is verified from here on is not the activity: its spans are gathered apart.
    await current.run({ ...work, spans: [] }, () => announced(ctx, activity, raw, work.event));
  }
}

async function announced(ctx, activity, raw, event) {
  const options = { ...ctx, crossOrigin: "throw" };
  try {
    const object = await activity.getObject(options);
    event.page = { class: object?.constructor.name, id: object?.id?.href };
    if (object instanceof vocab.OrderedCollectionPage) {
      Object.assign(event.page, { partOf: object.partOfId?.href, startIndex: object.startIndex, items: [] });
      for await (const item of object.getItems(options)) {
        event.page.items.push({ class: item.constructor.name, id: item.id?.href });
      }
    }
  } catch (error) {
    event.page = { ...event.page, error: message(error) };
  }
  event.statements = [];
  for (const item of [raw.orderedItems ?? raw.items ?? []].flat()) {
    if (typeof item === "object") event.statements.push({ id: item.id, ...await verify(ctx, item) });
  }
}

server.on("request", async (incoming, outgoing) => {
  const parts = [];
  try {
    for await (const part of incoming) parts.push(part);
  } catch {
    return; // the other side hung up
  }
  const body = Buffer.concat(parts);
  const headers = new Headers();
  for (let i = 0; i < incoming.rawHeaders.length; i += 2) headers.append(incoming.rawHeaders[i], incoming.rawHeaders[i + 1]);
  const { method, url: path } = incoming;
  const scheme = schemeOf(headers);
  if (onlyScheme != null && scheme !== "" && scheme !== onlyScheme) {
    outgoing.writeHead(401).end();
    print({ event: "refused", method, path, scheme });
    return;
  }
  const request = new Request(origin + path, { method, headers, body: method === "POST" ? body : undefined });
  const event = {
    event: method === "POST" ? "inbox" : "request", method, path, scheme, headers: Object.fromEntries(headers),
  };
  if (method === "POST") {
    event.body = body.toString();
    try {
      const { type, id, actor } = JSON.parse(event.body);
      Object.assign(event, { type, id, actor });
    } catch { /* Fedify says so itself */ }
  }
  const work = { ...gather(), event };
  let response;
  try {
    response = await current.run(work, () => federations.rfc9421.fetch(request, { contextData: undefined }));
  } catch (error) {
    work.log.push(`error: ${message(error)}`);
    response = new Response(message(error), { status: 500 });
  }
  const text = await response.text();
  event.status = response.status;
  if (method === "POST") {
    event.response = text;
    Object.assign(event, verified(work.spans), { requests: work.requests, log: work.log });
  }
  outgoing.writeHead(response.status, Object.fromEntries(response.headers)).end(text);
  print(event);
});

// verified reads from the spans of an inbox request what was verified, and with which key.
function verified(spans) {
  const out = { verified: false, ld: false, proofs: [], http: null };
  for (const { name, attributes, events, status } of spans) {
    if (name === "activitypub.inbox") {
      const known = events.find((event) => event.name === "activitypub.activity.received")?.attributes;
      out.verified = known?.["activitypub.activity.verified"] === true;
      out.ld = known?.["ld_signatures.verified"] === true;
    } else if (name === "object_integrity_proofs.verify") {
      const verified = status.code !== SpanStatusCode.ERROR;
      out.proofs.push({ verified, key: attributes["object_integrity_proofs.key_id"] });
    } else if (name === "http_signatures.verify") {
      out.http = {
        verified: attributes["http_signatures.verified"] === true,
        key: attributes["http_signatures.key_id"],
        reason: attributes["http_signatures.failure_reason"],
      };
    }
  }
  return out;
}

let made = 0;
const newID = () => new URL(`${origin}/activities/${++made}`);
const follows = new Map();

async function find(ctx, identifier) {
  const actor = await ctx.lookupObject(identifier);
  if (actor == null) throw new Error(`${identifier}: Fedify found nothing there`);
  if (!vocab.isActor(actor)) throw new Error(`${identifier}: is a ${actor.constructor.name}, not an actor`);
  if (actor.inboxId == null) throw new Error(`${identifier}: actor has no inbox`);
  return actor;
}

async function send(ctx, recipient, activity) {
  await ctx.sendActivity({ identifier: name }, recipient, activity, { immediate: true });
  return { id: activity.id.href };
}

const commands = {
  async lookup({ handle, url }) {
    const ctx = context();
    const actor = await find(ctx, handle ?? url);
    const publicKeys = [], assertionMethods = [];
    for await (const key of actor.getPublicKeys(ctx)) {
      publicKeys.push({ id: key.id?.href, owner: key.ownerId?.href, algorithm: key.publicKey?.algorithm.name });
    }
    for await (const key of actor.getAssertionMethods(ctx)) {
      assertionMethods.push({ id: key.id?.href, controller: key.controllerId?.href, algorithm: key.publicKey?.algorithm.name });
    }
    return {
      class: actor.constructor.name, id: actor.id?.href, inbox: actor.inboxId.href, outbox: actor.outboxId?.href,
      followers: actor.followersId?.href, sharedInbox: actor.endpoints?.sharedInbox?.href,
      preferredUsername: actor.preferredUsername?.toString(), publicKeys, assertionMethods,
    };
  },

  async fetch({ url, scheme }) {
    const ctx = context(scheme);
    const load = scheme == null ? ctx.documentLoader : await ctx.getDocumentLoader({ identifier: name });
    const { document, documentUrl } = await load(url);
    return { document, url: documentUrl };
  },

  async walk({ url, scheme }) {
    const ctx = context(scheme);
    const documentLoader = scheme == null ? ctx.documentLoader : await ctx.getDocumentLoader({ identifier: name });
    const collection = await ctx.lookupObject(url, { documentLoader });
    if (collection == null) throw new Error(`${url}: Fedify found nothing there`);
    const items = [];
    for await (const item of ctx.traverseCollection(collection, { documentLoader, crossOrigin: "throw" })) {
      items.push({ class: item.constructor.name, id: item.id?.href });
    }
    return { class: collection.constructor.name, totalItems: collection.totalItems, items };
  },

  async follow({ actor, scheme }) {
    const ctx = context(scheme);
    const recipient = await find(ctx, actor);
    const follow = new vocab.Follow({ id: newID(), actor: ctx.getActorUri(name), object: recipient.id, to: recipient.id });
    follows.set(follow.id.href, { follow, recipient });
    return await send(ctx, recipient, follow);
  },

  async undo({ follow: id, scheme }) {
    const ctx = context(scheme);
    const known = follows.get(id);
    if (known == null) throw new Error(`no Follow ${id} was sent from here`);
    const actor = ctx.getActorUri(name);
    return await send(ctx, known.recipient, new vocab.Undo({ id: newID(), actor, object: known.follow, to: known.recipient.id }));
  },

  async send({ to, activity, scheme }) {
    const ctx = context(scheme);
    const document = {
      "@context": "https://www.w3.org/ns/activitystreams", id: newID().href, actor: ctx.getActorUri(name).href, ...activity,
    };
    return await send(ctx, await find(ctx, to), await vocab.Activity.fromJsonLd(document, ctx));
  },

  async post({ inbox, body, scheme }) {
    const [{ keyId, privateKey }] = await context(scheme).getActorKeyPairs(name);
    const request = new Request(inbox, { method: "POST", headers: { "content-type": "application/activity+json" }, body });
    const response = await fetch(await signRequest(request, privateKey, keyId, { spec: schemes[scheme] }), { redirect: "manual" });
    return { status: response.status, response: await response.text() };
  },

  async verify({ statement }) {
    return await verify(context(), statement);
  },
};

createInterface({ input: process.stdin }).on("line", async (line) => {
  const work = gather();
  let n;
  try {
    const { cmd, ...args } = JSON.parse(line);
    n = args.n;
    if (!Object.hasOwn(commands, cmd)) throw new Error(`unknown command ${cmd}`);
    print({ n, ...await current.run(work, () => commands[cmd](args)), requests: work.requests });
  } catch (error) {
    print({ n, error: message(error), requests: work.requests, log: work.log });
  }
}).on("close", () => process.exit(0));

print({
  event: "ready", origin, actor: `${origin}/users/${name}`, inbox: `${origin}/users/${name}/inbox`, sharedInbox: `${origin}/inbox`,
  handle: `@${name}@${new URL(origin).host}`, node: process.version,
});
