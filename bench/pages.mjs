// Seeds a Console by its API, signs in as a browser does, and asks for each page over one kept connection, in turns with nginx.
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { createServer } from 'node:net';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PASSWORD, eventually, scratch, startConsole, startRack } from '../tests/browser/harness.mjs';

const { values } = parseArgs({ options: {
  members: { type: 'string', default: '10000' }, racks: { type: 'string', default: '1000' }, requests: { type: 'string', default: '300' },
} });
const [members, racks, requests] = [values.members, values.racks, values.requests].map(Number);

const ends = [];
const t = { after: (end) => ends.push(end) };

/// One request; gives status, headers, body and the milliseconds to its last byte.
function ask(agent, base, path, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const began = process.hrtime.bigint();
    const sent = request(new URL(path, base), { agent, method, headers, rejectUnauthorized: false }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => resolve({
        status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts), ms: Number(process.hrtime.bigint() - began) / 1e6,
      }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

async function all(count, at_a_time, work) {
  let next = 0;
  await Promise.all(Array.from({ length: at_a_time }, async () => {
    while (next < count) await work(next++);
  }));
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];

async function nginx(at, size) {
  const dir = await scratch(t);
  const port = await new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
  await mkdir(join(dir, 'www'));
  await writeFile(join(dir, 'www/page.html'), 'x'.repeat(size));
  await writeFile(join(dir, 'nginx.conf'), `
    user root; daemon off; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log;
    events { worker_connections 256; }
    http {
      access_log off; keepalive_requests 1000000; sendfile on;
      client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
      server { listen 127.0.0.1:${port} ssl; ssl_certificate ${at.data}/tls/cert.pem; ssl_certificate_key ${at.data}/tls/key.pem; root ${dir}/www; }
    }`);
  const child = spawn('nginx', ['-c', join(dir, 'nginx.conf')], { stdio: 'inherit' });
  t.after(() => child.kill('SIGTERM'));
  const url = `https://127.0.0.1:${port}`;
  await eventually('nginx listens', () => ask(undefined, url, '/page.html').then(() => true, () => false));
  return url;
}

try {
  const at = await startConsole(t);
  const rack = await startRack(t, 'main');
  const { api_key: key } = await at.admin('setup', '--code', at.code, '--org', 'acme', '--email', 'ada@example.com');
  const link = (await at.admin('user', 'reset-link', 'ada@example.com', '--url', at.url)).link;
  const seeding = new Agent({ keepAlive: true, maxSockets: 32 });
  const api = async (path, body) => {
    const answer = await ask(seeding, at.url, `/api/v1${path}`, {
      method: 'POST', headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' }, body: JSON.stringify(body),
    });
    if (answer.status !== 200) throw new Error(`${path}: ${answer.status} ${answer.body}`);
  };
  console.error(`adding ${members} members and ${racks} Racks`);
  await all(members - 1, 32, (i) => api('/organizations/acme/members', { email: `member-${i}@example.com`, role: 'developer' }));
  await all(racks, 16, (i) => api('/organizations/acme/racks', { name: `rack-${i}`, host: rack.host, password: rack.password, pin: rack.fingerprint }));

  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const form = { origin: at.url, 'content-type': 'application/x-www-form-urlencoded' };
  const code = link.split('#')[1];
  const signed = await ask(agent, at.url, '/console/reset/finish', {
    method: 'POST', headers: form, body: new URLSearchParams({ code, email: '', password: PASSWORD }).toString(),
  });
  const cookie = signed.headers['set-cookie'][0].split(';')[0];
  const browse = { cookie, 'sec-fetch-site': 'same-origin' };
  const first = await ask(agent, at.url, '/console/account', { headers: browse });
  const assets = [...first.body.toString().matchAll(/(?:href|src)="(\/console\/assets\/[^"]+)"/g)].map((match) => match[1]);
  let shared = 0;
  for (const path of assets) shared += (await ask(agent, at.url, path)).body.length;

  const pages = [
    ['Sign in', '/console/sign-in', {}],
    ['Racks', '/console/racks', browse],
    ['Racks, searched', '/console/racks?q=rack-99', browse],
    ['Racks, last page', `/console/racks?page=${Math.ceil(racks / 50)}`, browse],
    ['a Rack (asks the Rack for its apps)', '/console/racks/acme/rack-7', browse],
    ['Organizations', '/console/organizations', browse],
    ['an organization', '/console/organizations/acme', browse],
    ['an organization, searched', '/console/organizations/acme?q=ember-999', browse],
    ['Activity', '/console/activity', browse],
    ['Activity, filtered', '/console/activity?org=acme&effect=console&person=ada%40example.com&from=', browse],
    ['Account', '/console/account', browse],
  ];
  const rows = pages.map(([name, path, headers]) => ({ name, path, headers, times: [], bytes: 0 }));
  const file = await nginx(at, 16 * 1024);
  const peer = { name: 'nginx: a file of 16 KiB', times: [], bytes: 0 };
  const other = new Agent({ keepAlive: true, maxSockets: 1 });
  for (let i = 0; i < requests + 20; i++) {
    for (const row of rows) {
      const answer = await ask(agent, at.url, row.path, { headers: row.headers });
      if (answer.status !== 200) throw new Error(`${row.path}: ${answer.status}`);
      row.bytes = answer.body.length;
      if (i >= 20) row.times.push(answer.ms);
    }
    const answer = await ask(other, file, '/page.html');
    peer.bytes = answer.body.length;
    if (i >= 20) peer.times.push(answer.ms);
  }
  const figures = [...rows, peer].map(({ name, path, times, bytes }) => {
    times.sort((a, b) => a - b);
    return { page: name, path, bytes, p50_ms: quantile(times, 0.5), p99_ms: quantile(times, 0.99) };
  });
  const kib = (bytes) => (bytes / 1024).toFixed(1);
  const lines = figures.map((row) => `| ${row.page} | ${kib(row.bytes)} | ${row.path ? kib(row.bytes + shared) : ''} | ${row.p50_ms.toFixed(2)} | ${row.p99_ms.toFixed(2)} |`);
  const table = ['| page | KiB | with style, script and icon | p50 ms | p99 ms |', '|---|--:|--:|--:|--:|', ...lines].join('\n');
  const results = join(import.meta.dirname, 'results');
  await writeFile(join(results, 'pages.md'), `${table}\n`);
  await writeFile(join(results, 'pages.json'), `${JSON.stringify({ members, racks, requests, cores: cpus().length, shared_bytes: shared, figures }, null, 2)}\n`);
  console.log(table);
} finally {
  for (const end of ends.reverse()) await end();
}
process.exit(0);
