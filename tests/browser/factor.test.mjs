// The second factor: passkeys and security keys by Chromium's virtual authenticator, codes as an authenticator app makes them, and the page
// that lets a command line in.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createServer as listener } from 'node:net';
import { after, test } from 'node:test';
import { PASSWORD, code, eventually, later, look, open, person, session, setUp, shut, signIn, startConsole } from './harness.mjs';

after(shut);

/// A Console under a name: browsers have no passkeys for an address.
async function start(t) {
  const free = listener().listen(0, '127.0.0.1');
  await new Promise((resolve) => free.once('listening', resolve));
  const { port } = free.address();
  await new Promise((resolve) => free.close(resolve));
  const url = `https://localhost:${port}`;
  return { ...await startConsole(t, { listen: `127.0.0.1:${port}`, args: ['--url', url] }), url };
}

/// Gives the browser an authenticator of its own.
async function authenticator(page, { protocol = 'ctap2', transport = 'internal' } = {}) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('WebAuthn.enable');
  const verifies = protocol === 'ctap2';
  const { authenticatorId } = await cdp.send('WebAuthn.addVirtualAuthenticator', {
    options: { protocol, transport, hasResidentKey: verifies, hasUserVerification: verifies, isUserVerified: verifies, automaticPresenceSimulation: true },
  });
  return { cdp, authenticatorId };
}

/// Whether a page is open to whoever has that session.
async function opens(page, at, value) {
  const answer = await page.request.get(`${at.url}/console/racks`, { headers: { cookie: `__Host-convox=${value}` }, maxRedirects: 0 });
  return answer.status() === 200;
}

async function addTotp(page, { looks = true } = {}) {
  await page.goto('/console/account/factors');
  await page.getByRole('link', { name: 'Add an authenticator app' }).click();
  const secret = (await page.locator('#secret').textContent()).trim();
  if (looks) await look(page, 'totp');
  await page.getByLabel('The code that it shows now').fill('000000');
  await page.getByRole('button', { name: 'Add it' }).click();
  await page.getByText('That is not the code that the app shows now').waitFor();
  assert.equal((await page.locator('#secret').textContent()).trim(), secret, 'the same secret, for another try');
  const used = code(secret);
  await page.getByLabel('The code that it shows now').fill(used);
  await page.getByRole('button', { name: 'Add it' }).click();
  await page.getByRole('heading', { name: 'Your recovery codes' }).waitFor();
  const codes = (await page.locator('#codes').textContent()).trim().split('\n');
  return { secret, codes, used };
}

test('a passkey is added, signs in by itself, and is a second factor after the password', async (t) => {
  const at = await start(t);
  const ada = await person(t, at);
  const { cdp, authenticatorId } = await authenticator(ada);
  await setUp(ada, at);
  await ada.goto('/console/account');
  await ada.getByRole('link', { name: 'Add one' }).click();
  await look(ada, 'factors');
  const before = await session(ada);
  await ada.getByRole('link', { name: 'Add a passkey' }).click();
  await look(ada, 'passkey-add');
  await ada.getByLabel('Name').fill('work laptop');
  await ada.getByRole('button', { name: 'Add it' }).click();
  await ada.getByRole('heading', { name: 'Your recovery codes' }).waitFor();
  await look(ada, 'recovery-codes');
  const codes = (await ada.locator('#codes').textContent()).trim().split('\n');
  assert.equal(new Set(codes).size, 10);
  const added = await session(ada);
  assert.notEqual(added, before, 'a new session');
  assert.ok(!await opens(ada, at, before) && await opens(ada, at, added), 'the old one is dead');
  await ada.getByRole('link', { name: 'I have them' }).click();
  await ada.getByText('work laptop').first().waitFor();
  await look(ada, 'factors-one');

  // By itself: nobody says who they are first.
  await ada.getByRole('button', { name: 'Sign out' }).click();
  await look(ada, 'sign-in-passkey');
  await ada.getByRole('button', { name: 'Sign in with a passkey' }).click();
  await ada.getByRole('heading', { name: 'Racks', exact: true }).waitFor();
  await ada.getByText('ada@example.com').first().waitFor();

  // After the password: until it is there, nothing else is open.
  await ada.getByRole('button', { name: 'Sign out' }).click();
  await signIn(ada, 'ada@example.com');
  await ada.getByRole('heading', { name: 'Prove who you are' }).waitFor();
  await look(ada, 'prove');
  const half = await session(ada);
  for (const path of ['/console/racks', '/console/organizations', '/console/activity', '/console/account', '/console/account/factors', '/console/account/factors/totp']) {
    const answer = await ada.request.get(path, { maxRedirects: 0 });
    assert.match(answer.headers().location ?? '', /^\/console\/prove/, path);
  }
  for (const path of ['/console/account/regenerate', '/console/account/factors/recovery-codes', '/console/account/keys']) {
    const answer = await ada.request.post(path, { headers: { origin: at.url }, form: { name: 'x' }, maxRedirects: 0 });
    assert.match(answer.headers().location ?? '', /^\/console\/prove/, path);
  }
  await ada.getByRole('button', { name: 'Use it' }).click();
  await ada.getByRole('heading', { name: 'Racks', exact: true }).waitFor();
  const whole = await session(ada);
  assert.notEqual(whole, half, 'a new session after the second factor');
  assert.ok(!await opens(ada, at, half) && await opens(ada, at, whole));

  // One that does not verify its owner signs nobody in.
  await cdp.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified: false });
  await ada.getByRole('button', { name: 'Sign out' }).click();
  await ada.getByRole('button', { name: 'Sign in with a passkey' }).click();
  await ada.getByText('It was cancelled, or took too long.').waitFor();
  await cdp.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified: true });

  // Recovery codes: each once.
  await signIn(ada, 'ada@example.com');
  for (const [given, comes] of [[codes[0].toUpperCase(), 'heading'], [codes[0], 'refused'], [codes[1].replaceAll('-', ' '), 'heading']]) {
    await ada.getByLabel('Recovery code').fill(given);
    await ada.getByRole('button', { name: 'Go on' }).click();
    if (comes === 'refused') {
      await ada.getByText('That recovery code is wrong, or was used before.').waitFor();
      continue;
    }
    await ada.getByRole('heading', { name: 'Racks', exact: true }).waitFor();
    await ada.getByRole('button', { name: 'Sign out' }).click();
    await signIn(ada, 'ada@example.com');
  }
  await ada.getByRole('button', { name: 'Use it' }).click();
  await ada.getByRole('heading', { name: 'Racks', exact: true }).waitFor();
  await ada.goto('/console/account/factors');
  await ada.getByText('8 left.').waitFor();

  // Strangers use up the tries at the password: the passkey lets its owner in all the same, in a browser that is not known (T18).
  const { request: stranger } = await (await open()).newContext({ ignoreHTTPSErrors: true, baseURL: at.url });
  later(t, () => stranger.dispose());
  const statuses = [];
  for (let i = 0; i < 12; i++) {
    const form = { email: 'ada@example.com', password: `wrong ${i}` };
    statuses.push((await stranger.post('/console/sign-in', { headers: { origin: at.url }, form, maxRedirects: 0 })).status());
  }
  assert.deepEqual(statuses, [...Array(10).fill(403), 429, 429]);
  await ada.getByRole('button', { name: 'Sign out' }).first().click();
  await ada.context().clearCookies({ name: '__Host-convox-device' });
  // Others ask for passkeys meanwhile, very often: that keeps nobody out either, and an answer is good once.
  await ada.route('**/console/sign-in/passkey/start', async (route) => {
    const response = await route.fetch();
    for (let i = 0; i < 22; i++) {
      await Promise.all(Array.from({ length: 50 }, () => stranger.post('/console/sign-in/passkey/start', { headers: { origin: at.url } })));
    }
    await route.fulfill({ response });
  });
  const answered = ada.waitForRequest((request) => request.method() === 'POST' && new URL(request.url()).pathname === '/console/sign-in/passkey');
  await ada.getByRole('button', { name: 'Sign in with a passkey' }).click();
  await ada.getByRole('heading', { name: 'Racks', exact: true }).waitFor();
  const again = await stranger.post('/console/sign-in/passkey', {
    headers: { origin: at.url, 'content-type': 'application/x-www-form-urlencoded' }, data: (await answered).postData(), maxRedirects: 0,
  });
  // Here by its counter, which is looked at first; not every authenticator has one.
  assert.match(await again.text(), /counter went back|answered already/);
  assert.equal(again.headers()['set-cookie'], undefined);
  await ada.goto('/console/account/factors');

  // Another name, and away.
  await ada.getByText('Rename').first().click();
  await ada.getByLabel('New name').fill('old laptop');
  await ada.getByRole('button', { name: 'Rename' }).click();
  await ada.getByText('It has its new name.').waitFor();
  const last = await session(ada);
  await ada.locator('summary', { hasText: 'Remove' }).first().click();
  await ada.getByRole('button', { name: 'Remove old laptop' }).click();
  await ada.getByText('It is removed').waitFor();
  assert.notEqual(await session(ada), last);
  assert.ok(!await opens(ada, at, last));
  const events = (await at.admin('audit', 'list', '--limit', '200')).map(({ action }) => action);
  for (const action of ['PasskeyAdd', 'FactorProve', 'PasskeyRename', 'PasskeyRemove', 'SignIn']) assert.ok(events.includes(action), action);
});

test('an authenticator app works without script, each code once, and guessing ends soon', async (t) => {
  const at = await start(t);
  const ada = await person(t, at, { script: false });
  await setUp(ada, at);
  const { secret, codes, used } = await addTotp(ada, { looks: false });
  await ada.getByRole('button', { name: 'Sign out' }).click();
  await signIn(ada, 'ada@example.com');
  const give = async (text) => {
    await ada.getByLabel('Code of your authenticator app').fill(text);
    await ada.getByRole('button', { name: 'Go on' }).click();
  };
  // The code that showed that the app works is used up; the next one counts.
  await give(used);
  await ada.getByText('That code is wrong, or was used before').waitFor();
  const next = code(secret, 1);
  await give(next);
  await ada.getByRole('heading', { name: 'Racks', exact: true }).waitFor();
  await ada.getByRole('button', { name: 'Sign out' }).click();
  await signIn(ada, 'ada@example.com');
  await give(next);
  await ada.getByText('That code is wrong, or was used before').waitFor();

  // Many at once, with the half-open session: five tries in all, of which two are gone.
  const form = (given) => ada.request.post('/console/prove', { headers: { origin: at.url }, form: { code: given }, maxRedirects: 0 });
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => form(String(i).padStart(6, '0'))));
  const texts = await Promise.all(answers.map((answer) => answer.text()));
  assert.equal(texts.filter((text) => text.includes('That code is wrong')).length, 3);
  assert.equal(texts.filter((text) => text.includes('Too many codes were tried')).length, 17);
  // Whoever has the right one waits too, but another factor goes.
  await give(code(secret, 0));
  await ada.getByText('Too many codes were tried').waitFor();
  await ada.getByLabel('Code of your authenticator app').fill(codes[3]);
  await ada.getByRole('button', { name: 'Go on' }).click();
  await ada.getByRole('heading', { name: 'Racks', exact: true }).waitFor();
});

test('an organization requires a second factor, of pages and keys, and locks nobody out', async (t) => {
  const at = await start(t);
  const ada = await person(t, at);
  const key = await setUp(ada, at);
  const bearer = (key, more = {}) => ({ headers: { authorization: `Basic ${Buffer.from(`convox:${key}`).toString('base64')}`, ...more } });
  await ada.goto('/console/organizations/acme');
  await ada.getByRole('button', { name: 'Require a second factor' }).click();
  await ada.getByText('You have no second factor yourself').waitFor();
  await authenticator(ada);
  const { secret } = await addTotp(ada);
  const deploy = (await at.admin('key', 'create', '--name', 'ci', '--kind', 'deploy', '--email', 'ada@example.com')).api_key;
  await at.admin('member', 'add', 'bob@example.com', '--org', 'acme', '--role', 'developer');
  const bobsKey = (await at.admin('key', 'create', '--name', 'laptop', '--email', 'bob@example.com')).api_key;
  await ada.goto('/console/organizations/acme');
  await ada.getByRole('button', { name: 'Require a second factor' }).click();
  await ada.getByText('Members need a second factor from now on.').waitFor();
  await ada.getByText('no second factor').waitFor();
  await look(ada, 'organization-strict');

  // Keys: a person's is asked for a session, or for a factor first; a machine's goes on; and signing in asks for nothing.
  const get = (path, key, more) => ada.request.get(path, bearer(key, more));
  const asked = await get('/racks', key);
  assert.deepEqual([asked.status(), asked.headers()['www-authenticate']], [401, 'Session path="/session" token="true"']);
  assert.equal((await get('/apps', key, { rack: 'acme/none' })).headers()['www-authenticate'], 'Session path="/session" token="true"');
  assert.equal((await get('/api/v1/keys', key)).status(), 401);
  assert.equal((await get('/auth', key)).status(), 200);
  assert.equal((await get('/racks', deploy)).status(), 200);
  const none = await get('/racks', bobsKey);
  assert.deepEqual([none.status(), none.headers()['www-authenticate']], [403, undefined]);
  assert.match(await none.text(), /sign in to the Console in a browser and add one/);

  // Whoever has none adds one before anything else.
  const bob = await person(t, at);
  const { link } = await at.admin('user', 'reset-link', 'bob@example.com', '--url', at.url);
  await bob.goto(link);
  await bob.getByLabel('New password').fill(PASSWORD);
  await bob.getByRole('button', { name: 'Choose it and sign in' }).click();
  await bob.getByText('Your organization requires a second factor. Add one to go on.').waitFor();
  await look(bob, 'factors-forced');
  await bob.goto('/console/racks');
  assert.equal(new URL(bob.url()).pathname, '/console/account/factors');
  await addTotp(bob);
  await bob.goto('/console/racks');
  await bob.getByRole('heading', { name: 'Racks', exact: true }).waitFor();

  // The last one stays, unless the server itself takes it.
  await ada.goto('/console/account/factors');
  await ada.locator('summary', { hasText: 'Remove' }).click();
  await ada.getByRole('button', { name: 'Remove the authenticator app' }).click();
  await ada.getByText('Acme requires a second factor, and this is your last one').waitFor();
  await at.admin('user', 'reset-factor', 'ada@example.com');
  await ada.goto('/console/racks');
  assert.equal(new URL(ada.url()).pathname, '/console/sign-in', 'signed out everywhere');
  await signIn(ada, 'ada@example.com');
  await ada.getByText('Add one to go on.').waitFor();
  assert.equal((await get('/racks', key)).status(), 403);
  const reset = (await at.admin('audit', 'list', '--limit', '100')).find(({ action }) => action === 'FactorReset');
  assert.deepEqual([reset.actor, reset.path], ['console command line', '/users/ada@example.com/factors']);
  assert.ok(secret);
});

test('a command line is let in by the page that it opens, on this machine only', async (t) => {
  const at = await start(t);
  const ada = await person(t, at);
  const { cdp, authenticatorId } = await authenticator(ada, { protocol: 'u2f', transport: 'usb' });
  const key = await setUp(ada, at);
  // A security key: touched, and no more; it is not offered for signing in without a password.
  await ada.goto('/console/account/factors');
  await ada.getByRole('link', { name: 'Add a security key' }).click();
  await ada.getByLabel('Name').fill('blue key');
  await ada.getByRole('button', { name: 'Add it' }).click();
  await ada.getByRole('heading', { name: 'Your recovery codes' }).waitFor();
  await ada.getByRole('link', { name: 'I have them' }).click();
  await ada.getByRole('link', { name: 'Add an authenticator app' }).click();
  const secret = (await ada.locator('#secret').textContent()).trim();
  await ada.getByLabel('The code that it shows now').fill(code(secret));
  await ada.getByRole('button', { name: 'Add it' }).click();
  await ada.getByText('It is added.').waitFor();
  await at.admin('org', 'require-factor', 'acme');

  // What the v3 client does: it listens, opens the page, and posts what comes back.
  const context = await (await open()).newContext({ ignoreHTTPSErrors: true });
  later(t, () => context.close());
  const brought = [];
  const callback = createServer((request, response) => {
    const url = new URL(request.url, 'http://x');
    if (url.searchParams.has('data')) brought.push(url);
    response.end('you may now close the window');
  }).listen(0, '127.0.0.1');
  later(t, () => callback.close());
  await new Promise((resolve) => callback.once('listening', resolve));
  const back = `http://127.0.0.1:${callback.address().port}`;
  const headers = { authorization: `Basic ${Buffer.from(`convox:${key}`).toString('base64')}` };
  const ask = async () => {
    const answer = await context.request.get(`${at.url}/session`, { headers });
    assert.equal(answer.status(), 200);
    assert.equal(answer.headers()['session-answers'], 'browser, code');
    return { challenge: answer.headers().challenge, token: (await answer.body()).toString('base64') };
  };
  const page = await context.newPage();
  const link = (token, to = back) => `${at.url}/login/u2f?${new URLSearchParams({ callback_url: to, token })}`;
  const data = async () => (await eventually('an answer at the callback', () => brought.pop())).searchParams.get('data');
  const post = (challenge, data, more = {}) => context.request.post(`${at.url}/session`, {
    headers: { ...headers, challenge, 'content-type': 'application/octet-stream', ...more }, data: Buffer.from(data, 'base64'),
  });

  // The security key, in another browser: the credential goes along with the person.
  const theirs = await authenticator(page, { protocol: 'u2f', transport: 'usb' });
  for (const credential of (await cdp.send('WebAuthn.getCredentials', { authenticatorId })).credentials) {
    await theirs.cdp.send('WebAuthn.addCredential', { authenticatorId: theirs.authenticatorId, credential: { ...credential, rpId: 'localhost' } });
  }
  let { challenge, token } = await ask();
  await page.goto(link(token));
  await page.getByText('ada@example.com').waitFor();
  await page.getByText(key.slice(-4)).waitFor();
  await look(page, 'challenge');
  await page.getByRole('button', { name: 'Use your passkey or security key' }).click();
  let answer = await data();
  let made = await post(challenge, answer);
  assert.equal(made.status(), 200, await made.text());
  const { id } = await made.json();
  assert.match(id, /^cxc_/);
  assert.equal((await context.request.get(`${at.url}/racks`, { headers: { ...headers, session: id } })).status(), 200);
  assert.equal((await post(challenge, answer)).status(), 409, 'an answer counts once');

  // A code on the page.
  ({ challenge, token } = await ask());
  await page.goto(link(token));
  await page.getByLabel('Code of your authenticator app').fill('000000');
  await page.getByRole('button', { name: 'Let it in' }).click();
  await page.getByText('That code is wrong, or was used before').waitFor();
  await page.getByLabel('Code of your authenticator app').fill(code(secret, 1));
  await page.getByRole('button', { name: 'Let it in' }).click();
  answer = await data();
  const second = (await at.admin('key', 'create', '--name', 'other', '--email', 'ada@example.com')).api_key;
  const other = { authorization: `Basic ${Buffer.from(`convox:${second}`).toString('base64')}` };
  assert.equal((await post(challenge, answer, other)).status(), 403, 'another key');
  assert.equal((await post(challenge, answer)).status(), 409, 'and the challenge is gone');

  // Nowhere but to this machine.
  ({ challenge, token } = await ask());
  for (const to of ['http://evil.example:80', 'http://localhost.evil.example:80', 'https://localhost:1', 'http://localhost:1@evil.example', 'javascript:alert(1)//:1', 'http://localhost']) {
    const answer = await context.request.get(link(token, to));
    assert.equal(answer.status(), 400, to);
    assert.ok(!(await answer.text()).includes('data-back'), to);
  }
  for (const bad of ['', 'x', Buffer.from('{}').toString('base64')]) assert.equal((await context.request.get(link(bad))).status(), 400);

  // It is among the devices, with its key, and is dead when it is signed out.
  await ada.goto('/console/account');
  await ada.getByText(`Command line with the key ${key.slice(-4)}`).waitFor();
  await ada.getByRole('button', { name: `Sign out Command line with the key ${key.slice(-4)}` }).click();
  await ada.getByText('That device is signed out.').waitFor();
  assert.equal((await context.request.get(`${at.url}/racks`, { headers: { ...headers, session: id } })).status(), 401);
});

test('the page that v2 names in its error lets its next command in by a passkey', async (t) => {
  const at = await start(t);
  const ada = await person(t, at);
  await authenticator(ada);
  const key = await setUp(ada, at);
  await ada.goto('/console/account/factors');
  await ada.getByRole('link', { name: 'Add a passkey' }).click();
  await ada.getByLabel('Name').fill('laptop');
  await ada.getByRole('button', { name: 'Add it' }).click();
  await ada.getByRole('heading', { name: 'Your recovery codes' }).waitFor();
  const [code] = (await ada.locator('#codes').textContent()).trim().split('\n');
  await at.admin('org', 'require-factor', 'acme');

  const { request } = await (await open()).newContext({ ignoreHTTPSErrors: true, baseURL: at.url });
  later(t, () => request.dispose());
  const headers = { authorization: `Basic ${Buffer.from(`convox:${key}`).toString('base64')}`, version: '20240312153045' };
  const refused = await request.get('/racks', { headers });
  assert.equal(refused.headers()['www-authenticate'], 'Session path="/session" token="false"');
  const post = () => request.post('/session', { headers: { ...headers, 'content-type': 'application/octet-stream' } });
  const link = async () => {
    const told = await post();
    assert.equal(told.status(), 403);
    return /open (\S+) in a browser/.exec(await told.text())[1];
  };
  // Nobody is signed in there.
  await ada.getByRole('button', { name: 'Sign out' }).first().click();
  await ada.goto(await link());
  await ada.getByText(key.slice(-4)).waitFor();
  await look(ada, 'let-in');
  await ada.getByRole('button', { name: 'Use your passkey or security key' }).click();
  await ada.getByRole('heading', { name: 'Your command line is let in' }).waitFor();
  await look(ada);
  const made = await post();
  assert.equal(made.status(), 200, await made.text());
  const { id } = await made.json();
  assert.equal((await request.get('/racks', { headers: { ...headers, session: id } })).status(), 200);
  // By a recovery code too, and each time once.
  await ada.goto(await link());
  await ada.getByLabel('Recovery code').fill(code);
  await ada.getByRole('button', { name: 'Let it in' }).click();
  await ada.getByRole('heading', { name: 'Your command line is let in' }).waitFor();
  assert.deepEqual([(await post()).status(), (await post()).status()], [200, 403]);
});
