// The board's API over a fake fleet: HTTP, server-sent events and the built files. For development and the browser test.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Fleet, iso, nowSeconds } from './fleet.mjs';
import { Incidents } from './incidents.mjs';
import { metricsAt } from './physics.mjs';

const DIST = fileURLToPath(new URL('../dist', import.meta.url));
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const CSP = "default-src 'self'; style-src 'self' 'unsafe-inline'";
const PAGE = 500;

class Problem extends Error {
  constructor(status, title, detail) {
    super(detail);
    Object.assign(this, { status, title, detail });
  }
}

/** Starts the mock. Returns its `url`, its state, and levers that tests pull. */
export async function startMock({ port = 0, nodes = 8, gpus = 8, token = null, story = true, tickMs = 1000 } = {}) {
  const fleet = new Fleet({ nodes, gpus });
  const incidents = new Incidents(fleet, story);
  const clients = new Set();
  const forced = new Map();
  let refusing = false;
  let eventId = 0;

  const send = (client, name, data) => client.res.write(`event: ${name}\nid: ${++eventId}\ndata: ${JSON.stringify(data)}\n\n`);
  const tell = (name, data) => [...clients].filter((c) => name === 'lagged' || c.events.has(name)).forEach((c) => send(c, name, data));
  const relight = () => {
    const lights = fleet.relight(incidents.items, forced);
    if (lights.length) tell('light', { lights });
  };
  relight();

  function tick() {
    const t = Math.floor(nowSeconds());
    for (const client of [...clients].filter((c) => c.events.has('sample'))) {
      const node = fleet.node(client.node);
      const rows = node?.gpus.map((g) => ({ device: g.device, uuid: g.uuid, metrics: metricsAt(g, t) })).filter((g) => g.metrics) ?? [];
      if (rows.length) send(client, 'sample', { node: node.name, at: iso(t), gpus: rows });
    }
    relight();
  }
  const timers = [setInterval(tick, tickMs), setInterval(() => clients.forEach((c) => c.res.write(': keep-alive\n\n')), 10_000)];

  function stream(req, res, query) {
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const client = { res, events: new Set((query.get('events') ?? 'light,incident').split(',')), node: query.get('node') };
    clients.add(client);
    res.on('close', () => clients.delete(client));
    send(client, 'hello', { cluster: 'demo', version: '0.1.0', now: iso(nowSeconds()) });
  }

  const page = (items, query) => {
    const from = Number(query.get('cursor') ?? 0);
    const limit = Math.min(PAGE, Number(query.get('limit') ?? PAGE));
    return { items: items.slice(from, from + limit), next: from + limit < items.length ? String(from + limit) : null };
  };
  const instant = (text, fallback) => {
    if (!text) return fallback;
    const ago = /^-(\d+)([smh])$/.exec(text);
    if (ago) return nowSeconds() - Number(ago[1]) * { s: 1, m: 60, h: 3600 }[ago[2]];
    return Number.isNaN(Number(text)) ? Date.parse(text) / 1000 : Number(text);
  };
  const incidentOf = (id) => incidents.find(id) ?? (() => { throw new Problem(404, 'Not found', `There is no incident ${id}; it may be older than the retention.`); })();

  async function post(req, id, verb) {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    if (!req.headers['content-type']?.startsWith('application/json')) throw new Problem(415, 'Unsupported media type', 'Send application/json.');
    const body = JSON.parse(Buffer.concat(chunks).toString() || '{}');
    const incident = incidentOf(id);
    if (incident.state === 'closed') throw new Problem(409, 'Conflict', `Incident ${id} is closed already; open a new one with a cord.`);
    if (verb === 'close' && !['hardware', 'workload', 'false_alarm', 'other'].includes(body.reason)) throw new Problem(422, 'Unprocessable', 'Give a reason: hardware, workload, false_alarm or other.');
    verb === 'close' ? incidents.close(incident, body.reason, body.note) : incidents.acknowledge(incident, body.note);
    tell('incident', Incidents.summaryOf(incident));
    relight();
    return incident;
  }

  async function api(req, url) {
    const { searchParams: query } = url;
    const path = url.pathname.slice('/api/v1/'.length).split('/').map(decodeURIComponent);
    if (req.method === 'POST' && path[0] === 'incidents') return post(req, path[1], path[2]);
    switch (path[0]) {
      case 'nodes': return page(fleet.nodes.map((n) => fleet.nodeView(n)), query);
      case 'gpus': return page(fleet.all().filter((g) => !query.get('node') || g.node === query.get('node')).map((g) => fleet.gpuView(g)), query);
      case 'jobs': return page(fleet.jobs(), query);
      case 'incidents': return path[1] ? incidentOf(path[1]) : page(incidents.list(query).map(Incidents.summaryOf), query);
      case 'series': {
        const step = Number.parseFloat(query.get('step') ?? '1') || 1;
        return fleet.series({ metric: query.get('metric'), node: query.get('node'), device: query.get('device'), from: instant(query.get('from'), nowSeconds() - 3600), to: instant(query.get('to'), nowSeconds()), step });
      }
      default: throw new Problem(404, 'Not found', `There is no ${url.pathname}.`);
    }
  }

  async function file(res, path) {
    // A node's name may have dots: only what looks like a file of ours is looked for.
    const isFile = path.startsWith('/assets/') || /^\/[^/]*\.[^/]*$/.test(path);
    const name = isFile ? normalize(path) : '/index.html';
    const body = await readFile(join(DIST, name)).catch(() => null);
    if (body === null) return res.writeHead(404).end();
    res.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream', 'content-security-policy': CSP }).end(body);
  }

  const server = createServer(async (req, res) => {
    const url = new URL(req.url, 'http://mock');
    if (!url.pathname.startsWith('/api/')) return file(res, url.pathname);
    if (refusing) return req.destroy();
    try {
      if (token !== null && req.headers.authorization !== `Bearer ${token}`) throw new Problem(401, 'Unauthorized', 'Give a bearer token: ask the operator of this cluster.');
      if (url.pathname === '/api/v1/stream') return stream(req, res, url.searchParams);
      const body = JSON.stringify(await api(req, url));
      res.writeHead(200, { 'content-type': 'application/json' }).end(body);
    } catch (error) {
      const { status = 500, title = 'Internal error', message } = error;
      res.writeHead(status, { 'content-type': 'application/problem+json' }).end(JSON.stringify({ type: 'about:blank', title, status, detail: message }));
    }
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));

  const drop = () => [...clients].forEach((c) => c.res.destroy());
  return {
    url: `http://127.0.0.1:${server.address().port}`, fleet, incidents, clients, tell, drop,
    /** Refuses the API (the files are still served), or takes it up again. */
    refuse(on) {
      refusing = on;
      if (on) drop();
    },
    /** Puts a light on a GPU against what its incidents say; `quietly` tells no client. */
    force(gpu, light, { quietly = false } = {}) {
      forced.set(gpu.uuid, light);
      quietly ? fleet.relight(incidents.items, forced) : relight();
    },
    async stop() {
      timers.forEach(clearInterval);
      drop();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
