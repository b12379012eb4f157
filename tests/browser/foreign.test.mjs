// What pages of other origins make a browser send: nothing of it counts, and none of it reaches a Rack.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { later, open, person, session, setUp, shut, signIn, startConsole } from './harness.mjs';

after(shut);

/// A server over TLS that answers with what `answer` gives, and remembers what it was asked.
async function serve(t, at, host, answer) {
  const hits = [];
  const tls = { cert: await readFile(join(at.data, 'tls/cert.pem')), key: await readFile(join(at.data, 'tls/key.pem')) };
  const server = createServer(tls, (request, response) => {
    hits.push(`${request.method} ${request.url}`);
    const [type, body] = answer(request);
    response.writeHead(200, { 'content-type': type }).end(body);
  });
  server.on('upgrade', (request, socket) => {
    hits.push(`UPGRADE ${request.url}`);
    socket.destroy();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  later(t, () => server.closeAllConnections());
  later(t, () => server.close());
  return { hits, host: `${host}:${server.address().port}`, url: `https://${host}:${server.address().port}` };
}

/// What an attacker's page tries, with the cookie of whoever opens it.
function attack(at) {
  const to = (path) => `${at.url}${path}`;
  return `<!doctype html><title>kittens</title><body><script>
    const tried = [];
    const note = (name, outcome) => tried.push(name + ': ' + outcome);
    const settle = (name, promise) => promise.then((answer) => note(name, answer.type + ' ' + answer.status), (error) => note(name, 'failed'));
    const form = 'application/x-www-form-urlencoded';
    const post = (path, extra = {}) => fetch('${to('')}' + path, { method: 'POST', credentials: 'include', ...extra });
    const socket = (path, protocols) => new Promise((resolve) => {
      const ws = new WebSocket('wss://${at.host}' + path, protocols);
      ws.onopen = () => { note('socket ' + path, 'OPEN'); resolve(); };
      ws.onerror = () => { note('socket ' + path, 'refused'); resolve(); };
    });
    const events = (path) => new Promise((resolve) => {
      const source = new EventSource('${to('')}' + path, { withCredentials: true });
      source.onopen = () => { note('events ' + path, 'OPEN'); resolve(); };
      source.onerror = () => { source.close(); note('events ' + path, 'refused'); resolve(); };
    });
    const element = (name, attributes) => new Promise((resolve) => {
      const node = Object.assign(document.createElement(name), attributes);
      node.onload = () => { note(name, 'LOADED'); resolve(); };
      node.onerror = () => { note(name, 'refused'); resolve(); };
      document.body.append(node);
    });
    const framed = () => new Promise((resolve) => {
      const frame = document.createElement('iframe');
      frame.src = '${to('/console/account')}';
      frame.onload = () => resolve();
      document.body.append(frame);
      setTimeout(resolve, 3000);
    });
    // A form that goes to a frame: the page stays.
    const submit = (path, fields, enctype) => new Promise((resolve) => {
      const sink = Object.assign(document.createElement('iframe'), { name: 'sink' + Math.random() });
      const node = Object.assign(document.createElement('form'), { method: 'post', action: '${to('')}' + path, target: sink.name });
      if (enctype) node.enctype = enctype;
      for (const [name, value] of Object.entries(fields)) node.append(Object.assign(document.createElement('input'), { name, value }));
      document.body.append(sink, node);
      sink.onload = () => { sink.onload = resolve; node.submit(); setTimeout(resolve, 3000); };
      sink.src = 'about:blank';
    });
    (async () => {
      await submit('/console/account/regenerate', {});
      await submit('/console/account/keys', { name: 'evil', kind: 'user', days: '' });
      await submit('/console/organizations/acme/invitations', { email: 'eve@example.com', role: 'administrator' });
      await submit('/console/organizations/acme/invitations', { '{"email":"eve@example.com","role":"administrator","x":"': '"}' }, 'text/plain');
      await submit('/console/racks/acme/main/apps/web/processes/p1/stop', {});
      await submit('/api/v1/keys/regenerate', {}, 'text/plain');
      for (const type of [form, 'text/plain', 'multipart/form-data']) {
        await settle('fetch ' + type, post('/console/account/keys', { mode: 'no-cors', headers: { 'content-type': type }, body: 'name=evil&kind=user&days=' }));
        await settle('api ' + type, post('/api/v1/organizations', { mode: 'no-cors', headers: { 'content-type': type }, body: '{"name":"evil"}' }));
      }
      await settle('override', post('/console/account/keys?_method=GET', { mode: 'no-cors', headers: { 'content-type': form }, body: '_method=GET&name=evil' }));
      await settle('read', fetch('${to('/console/account')}', { credentials: 'include' }));
      await settle('read, no-cors', fetch('${to('/console/racks/acme/main')}', { credentials: 'include', mode: 'no-cors' }));
      await settle('preflight', fetch('${to('/apps')}', { credentials: 'include', headers: { rack: 'acme/main' } }));
      await settle('delete', fetch('${to('/console/account')}', { method: 'DELETE', credentials: 'include' }));
      for (const path of ['/apps/web/logs', '/apps/web/processes/p1/exec', '/system/logs', '/console/racks/acme/main/apps/web/logs/stream', '/instances/i1/shell', '/proxy/localhost/1']) {
        await socket(path);
      }
      await events('/console/racks/acme/main/apps/web/logs/stream');
      await element('img', { src: '${to('/console/racks/acme/main')}' });
      await element('script', { src: '${to('/console/activity.json?org=acme')}' });
      await framed();
      document.title = 'done';
      document.body.dataset.tried = JSON.stringify(tried);
    })();
  </script>`;
}

for (const [what, own, host] of [
  ['another site', '127.0.0.1', 'localhost'], ['another port of the same host', '127.0.0.1', '127.0.0.1'],
  ['a sibling of its domain', 'console.convox.test', 'evil.convox.test'],
]) {
  test(`forms, fetches, sockets and frames of ${what} change nothing and read nothing`, async (t) => {
    const at = await startConsole(t);
    at.host = at.host.replace('127.0.0.1', own);
    at.url = `https://${at.host}`;
    const ada = await person(t, at);
    await setUp(ada, at);
    const rack = await serve(t, at, '127.0.0.1', () => ['application/json', '{"name":"main","provider":"local","status":"running","version":"1"}']);
    await ada.goto('/console/racks/add');
    await ada.locator('#name').fill('main');
    await ada.locator('#host').fill(rack.host);
    await ada.getByLabel('Its password').fill('correct-rack-password-1');
    await ada.getByRole('button', { name: 'Check the Rack' }).click();
    await ada.getByRole('button', { name: 'Pin it and add the Rack' }).click();
    await ada.getByText('The Rack is added.').waitFor();
    await ada.goto('/console/account');
    const before = await ada.locator('main').textContent();

    const evil = await serve(t, at, host, () => ['text/html', attack(at)]);
    const reached = rack.hits.length;
    const tab = await ada.context().newPage();
    // The signed-in browser itself opens it, beside the Console. What that page asks of the Console is its fault, not ours.
    ada.context().removeAllListeners('request');
    ada.context().removeAllListeners('console');
    // What the Console answered, which the page that asked does not get to know.
    const answers = [];
    ada.context().on('response', (answer) => {
      const method = answer.request().method();
      if (answer.url().startsWith(`${at.url}/`)) answers.push({ method, status: answer.status(), path: new URL(answer.url()).pathname });
    });
    await tab.goto(evil.url);
    await tab.waitForFunction(() => document.title === 'done', undefined, { timeout: 90_000 });
    const tried = JSON.parse(await tab.evaluate(() => document.body.dataset.tried));
    assert.ok(tried.length > 15, tried.join('\n'));
    for (const line of tried) {
      // What is not read back looks the same for a refusal: `opaque`. What it did is looked at below.
      assert.match(line, /: (refused|failed|opaque 0)$/, line);
    }
    const posts = answers.filter(({ method, path }) => method === 'POST' && path.startsWith('/console/'));
    // Of what a fetch sent the browser does not even say the status: `Cross-Origin-Resource-Policy`. Forms are all here.
    assert.ok(posts.length >= 5, JSON.stringify(answers));
    assert.deepEqual(posts.filter(({ status }) => status !== 403), [], 'every form and fetch that would change something is refused');
    assert.deepEqual(answers.filter(({ status }) => ![401, 403, 404, 405].includes(status)), [], 'and nothing else is answered');
    for (const frame of tab.frames().slice(1)) {
      assert.ok(!(await frame.content()).includes('Regenerate'), 'no page of ours is in a frame');
    }
    const asked = rack.hits.slice(reached).filter((hit) => hit !== 'GET /system');
    assert.deepEqual(asked, [], 'nothing reached the Rack but looks at its health');

    await ada.goto('/console/account');
    const same = (text) => text.replace(/\d+ \w+ ago|just now|in \d+ \w+/g, '');
    assert.equal(same(await ada.locator('main').textContent()), same(before), 'keys are as they were');
    await ada.goto('/console/organizations/acme');
    await ada.getByText('None is open.', { exact: false }).waitFor();
    await ada.goto('/console/organizations');
    assert.equal(await ada.getByRole('listitem').count(), 1);

    // No page of a sibling domain can plant a session: the prefix of the cookie's name forbids it a domain.
    const name = '__Host-convox';
    const cookies = async () => (await ada.context().cookies(at.url)).filter((cookie) => cookie.name.toLowerCase() === name.toLowerCase());
    const own_cookie = await cookies();
    await tab.evaluate((name) => {
      document.cookie = `${name}=planted; Path=/; Secure; Domain=convox.test`;
      document.cookie = `${name}=planted; Path=/console; Secure; Domain=convox.test`;
      document.cookie = `__host-CONVOX=planted; Path=/; Secure; Domain=convox.test`;
    }, name);
    assert.deepEqual(await cookies(), own_cookie);
    await ada.goto('/console/organizations');
    await ada.getByRole('heading', { name: 'Organizations' }).waitFor();

    // A link on another site may lead here, as links do.
    await tab.evaluate((url) => { location.href = url; }, `${at.url}/console/organizations`);
    await tab.getByRole('heading', { name: 'Organizations' }).waitFor();
  });
}

test('the cookie and the headers of every answer', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at);
  await setUp(ada, at);
  await ada.goto('/console/account');
  await ada.getByRole('button', { name: 'Sign out', exact: true }).first().click();
  await signIn(ada, 'ada@example.com');
  // The session, and the mark of a browser that they signed in with before.
  const cookies = await ada.context().cookies();
  assert.deepEqual(cookies.map(({ name }) => name).sort(), ['__Host-convox', '__Host-convox-device']);
  for (const { name, secure, httpOnly, sameSite, path, domain } of cookies) {
    const only = name === '__Host-convox' ? 'Lax' : 'Strict';
    assert.deepEqual([secure, httpOnly, sameSite, path, domain], [true, true, only, '/', new URL(at.url).hostname], name);
  }
  const paths = ['', '/racks', '/account', '/organizations', '/activity', '/nope', '/racks/acme/nope', '/setup'];
  const styles = await ada.locator('link[rel=stylesheet]').getAttribute('href');
  for (const path of [...paths.map((path) => `/console${path}`), styles]) {
    const headers = (await ada.request.get(path, { maxRedirects: 0 })).headers();
    const policy = headers['content-security-policy'];
    assert.ok(policy.includes("default-src 'none'") && policy.includes("frame-ancestors 'none'") && !policy.includes('unsafe'), `${path}: ${policy}`);
    assert.equal(headers['x-content-type-options'], 'nosniff', path);
    assert.equal(headers['x-frame-options'], 'DENY', path);
    assert.equal(headers['referrer-policy'], 'no-referrer', path);
    assert.match(headers['strict-transport-security'], /max-age=\d{7,}/, path);
    if (path !== styles) assert.equal(headers['cache-control'], 'no-store', path);
  }
  // A script that got into a page would not run, and the browser says so.
  ada.context().removeAllListeners('console');
  const ran = await ada.evaluate(() => new Promise((resolve) => {
    const script = document.createElement('script');
    script.textContent = 'window.ran = true';
    document.addEventListener('securitypolicyviolation', () => resolve(false));
    document.body.append(script);
    setTimeout(() => resolve(window.ran === true), 1000);
  }));
  assert.equal(ran, false);
});

test('the session of the web opens pages only, and a key opens no page', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at);
  const key = await setUp(ada, at);
  const cookie = { value: await session(ada) };
  const context = await (await open()).newContext({ ignoreHTTPSErrors: true, baseURL: at.url });
  later(t, () => context.close());
  const basic = (secret) => ({ authorization: `Basic ${Buffer.from(`${secret}:`).toString('base64')}` });
  const password = (secret) => ({ authorization: `Basic ${Buffer.from(`convox:${secret}`).toString('base64')}` });
  for (const headers of [basic(cookie.value), password(cookie.value), { cookie: `__Host-convox=${cookie.value}` }]) {
    for (const path of ['/api/v1/me', '/racks', '/auth']) {
      assert.equal((await context.request.get(path, { headers })).status(), 401, path);
    }
  }
  for (const headers of [password(key), { cookie: `__Host-convox=${key}` }]) {
    const answer = await context.request.get('/console/account', { headers, maxRedirects: 0 });
    assert.equal(answer.status(), 303);
  }
});
