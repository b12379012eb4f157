// Who is signed in, for how long, and by what: never by anything that somebody else planted or asked for.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { SMTPServer } from 'smtp-server';
import { PASSWORD, eventually, later, look, open, person, session, setUp, shut, signIn, startConsole } from './harness.mjs';

after(shut);

test('of many who bring the setup code at once, one wins', async (t) => {
  const at = await startConsole(t);
  const context = await (await open()).newContext({ ignoreHTTPSErrors: true, baseURL: at.url });
  later(t, () => context.close());
  const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => context.request.post('/console/setup', {
    headers: { origin: at.url }, timeout: 120_000,
    form: { code: at.code, organization: `org-${i}`, email: `user-${i}@example.com`, password: PASSWORD },
  })));
  const statuses = answers.map((answer) => answer.status()).sort();
  assert.deepEqual(statuses.filter((status) => status === 200).length, 1, String(statuses));
  // Or told to come again: of one network so many passwords are not hashed at once.
  assert.ok(statuses.every((status) => [200, 303, 409, 429].includes(status)), String(statuses));
  assert.equal((await at.admin('user', 'list')).length, 1);
  assert.equal((await at.admin('org', 'list')).length, 1);
});

test('a planted session is never the one that is signed in, and every sign-in has a new one', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at);
  await setUp(ada, at);
  const first = await session(ada);

  // An attacker's own session, planted before the sign-in.
  const eve = await person(t, at);
  await at.admin('invitation', 'create', 'eve@example.com', '--org', 'acme', '--role', 'developer', '--url', at.url).then(({ link }) => eve.goto(link));
  await eve.getByLabel('Choose a password').fill(PASSWORD);
  await eve.getByRole('button', { name: 'Join acme' }).click();
  await eve.getByText('Welcome: you are a member now.').waitFor();
  const planted = await session(eve);
  const victim = await person(t, at);
  await victim.context().addCookies([{ name: '__Host-convox', value: planted, url: at.url, secure: true, httpOnly: true }]);
  await victim.goto('/console/racks');
  await victim.getByText('eve@example.com').waitFor();
  await victim.getByRole('button', { name: 'Sign out' }).click();
  await signIn(victim, 'ada@example.com');
  assert.notEqual(await session(victim), planted);
  await eve.goto('/console/racks');
  assert.equal(new URL(eve.url()).pathname, '/console/sign-in', 'the planted one is nobody’s');

  // Without signing out first: signing in takes the place of what was there.
  await signIn(eve, 'eve@example.com');
  const before = await session(eve);
  const answer = await eve.request.post('/console/sign-in', {
    headers: { origin: at.url }, form: { email: 'ada@example.com', password: PASSWORD }, maxRedirects: 0,
  });
  assert.equal(answer.status(), 303);
  assert.notEqual(await session(eve), before);
  const other = await person(t, at);
  await other.context().addCookies([{ name: '__Host-convox', value: before, url: at.url, secure: true, httpOnly: true }]);
  await other.goto('/console/racks');
  assert.equal(new URL(other.url()).pathname, '/console/sign-in', 'what was there has ended');

  // Made up, cut, doubled.
  for (const bad of ['x', first.slice(0, -1), `${first}x`, first.replace(/^cxw/, 'cxu'), '']) {
    const answer = await ada.request.get('/console/account', { headers: { cookie: `__Host-convox=${bad}` }, maxRedirects: 0 });
    assert.equal(answer.status(), 303, bad);
  }
  assert.notEqual(await session(ada), undefined);
});

test('a changed role gives every browser of theirs a new session, and the old one is dead', async (t) => {
  const at = await startConsole(t);
  await setUp(await person(t, at), at);
  const { link } = await at.admin('invitation', 'create', 'bob@example.com', '--org', 'acme', '--role', 'developer', '--url', at.url);
  const bob = await person(t, at);
  await bob.goto(link);
  await bob.getByLabel('Choose a password').fill(PASSWORD);
  await bob.getByRole('button', { name: 'Join acme' }).click();
  await bob.getByText('Welcome: you are a member now.').waitFor();
  const phone = await person(t, at);
  await signIn(phone, 'bob@example.com');
  for (const role of ['operator', 'developer']) {
    const before = [await session(bob), await session(phone)];
    await at.admin('member', 'role', 'bob@example.com', '--org', 'acme', '--role', role);
    // The page that they open is the one that they get.
    await bob.goto('/console/organizations/acme?q=bob');
    assert.equal(new URL(bob.url()).search, '?q=bob');
    await bob.getByText(`${role}, since`, { exact: false }).waitFor();
    await phone.goto('/console/racks');
    assert.notEqual(await session(bob), before[0]);
    assert.notEqual(await session(phone), before[1]);
    for (const old of before) {
      const answer = await (await person(t, at)).request.get('/console/account', { headers: { cookie: `__Host-convox=${old}` }, maxRedirects: 0 });
      assert.equal(answer.status(), 303, 'the old one is nobody’s');
    }
    const settled = await session(bob);
    await bob.goto('/console/racks');
    assert.equal(await session(bob), settled, 'once for each change');
  }
  await bob.goto('/console/account');
  assert.equal(await bob.getByRole('button', { name: /^Sign out Chrome/ }).count(), 2, 'still the same two devices');
});

test('signing in leads to pages of the Console only', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at);
  await setUp(ada, at);
  await ada.getByRole('button', { name: 'Sign out' }).click();
  const starts = ['//', '///', '/\\', '\\\\', '\\/', '/\t/', '/\n/', '/%09/', '/%5c', '/%2f', '/ /', '/.//', '/console//', '/console/..//', '/console/%2e%2e//',
    'https://', 'https:', 'http://', 'HTTPS://', 'javascript:', 'data:text/html,', '/console@', '/console?next=//', '/console#//', '/console/\\', '@', '.', '',
    '/consolex/', '/console/\u2028//', '/console/\u0000//', '%2f%2f', '/\u202e/', 'ftp://', '/console/;//', 'https:/\\', '/console/%0d%0aLocation:%20//', '/;@'];
  const ends = ['evil.example', 'evil.example/console/', 'evil.example%2f..', '127.0.0.1.evil.example', 'evil.example\\@console', 'evil.example?x', 'evil.example#/console', 'evil%E3%80%82example'];
  let tried = 0;
  for (const start of starts) {
    for (const end of ends) {
      tried += 1;
      const next = start + end;
      const page = await ada.request.get(`/console/sign-in?next=${encodeURIComponent(next)}`);
      const hidden = /name="next" value="([^"]*)"/.exec(await page.text())[1];
      const landed = new URL(hidden.replaceAll('&#38;', '&'), at.url);
      assert.equal(landed.origin, at.url, next);
      assert.match(landed.pathname, /^\/console(\/|$)/, next);
    }
  }
  assert.ok(tried >= 300, String(tried));
  // The form cannot be told either.
  for (const next of ['//evil.example', '/\\evil.example', 'https://evil.example', '/console/\\evil.example', '/console//evil.example']) {
    const answer = await ada.request.post('/console/sign-in', {
      headers: { origin: at.url }, form: { email: 'ada@example.com', password: PASSWORD, next }, maxRedirects: 0,
    });
    assert.equal(answer.headers().location, '/console', next);
  }
});

test('a session ends when it is not used, and in any case after its longest time', async (t) => {
  const at = await startConsole(t, { args: ['--session-idle', '3s', '--session-longest', '14s'] });
  const ada = await person(t, at);
  await setUp(ada, at);
  const began = Date.now();
  const isIn = async () => (await ada.request.get('/console/account', { maxRedirects: 0 })).status() === 200;
  // Longer than a session lasts that nobody uses, which is 3 s and a little.
  while (Date.now() - began < 8_000) {
    assert.ok(await isIn(), `signed in and at work, after ${Date.now() - began} ms`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  await eventually('the longest time is over', async () => {
    const is = await isIn();
    assert.ok(!is || Date.now() - began < 16_000, 'use does not move the longest time');
    return !is;
  }, 20_000);
  assert.ok(Date.now() - began > 12_000, 'not by its idle time');
  // What a page asks for by itself, as the list of Racks does, is no use of it.
  await signIn(ada, 'ada@example.com');
  const asks = () => ada.evaluate(async () => (await fetch('/console/racks', { redirect: 'manual' })).ok);
  assert.ok(await asks());
  const left = Date.now();
  await eventually('nobody uses it', async () => !await asks(), 9_000);
  assert.ok(Date.now() - left > 2_500, 'not before its idle time');
});

test('mail: an invitation and a forgotten password, and nobody learns who has an account', async (t) => {
  const mails = [];
  const server = new SMTPServer({
    authOptional: true, disabledCommands: ['STARTTLS'],
    onData(stream, session, done) {
      const parts = [];
      stream.on('data', (part) => parts.push(part));
      stream.on('end', () => {
        const text = Buffer.concat(parts).toString().replaceAll('=\r\n', '').replaceAll('=3D', '=');
        mails.push({ to: session.envelope.rcptTo.map((to) => to.address).join(), from: session.envelope.mailFrom.address, text });
        done();
      });
    },
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  later(t, () => new Promise((resolve) => server.close(resolve)));
  // The address in links is what the Console was told, never what a request claims: the browser is led to it by its own name.
  const at = await startConsole(t, {
    listen: '127.0.0.1:0',
    args: ['--url', 'https://console.example.com', '--mail-from', 'Convox Console <console@example.com>'],
    env: { CONVOX_SMTP_URL: `smtp://127.0.0.1:${server.server.address().port}` },
  });
  const here = (link) => link.replace('https://console.example.com', at.url);
  const link = (mail) => here(/https:\/\/console\.example\.com\/\S+/.exec(mail.text)[0]);
  const ada = await person(t, at);
  await setUp(ada, at);
  await ada.goto('/console/organizations/acme');
  await ada.getByLabel('Email address').fill('bob@example.com');
  await ada.getByRole('button', { name: 'Invite' }).click();
  await ada.getByText('A mail with it is on its way to bob@example.com.').waitFor();
  const invited = await eventually('the invitation is mailed', () => mails.shift());
  assert.deepEqual([invited.to, invited.from], ['bob@example.com', 'console@example.com']);
  const bob = await person(t, at);
  await bob.goto(link(invited));
  await bob.getByLabel('Choose a password').fill(PASSWORD);
  await bob.getByRole('button', { name: 'Join acme' }).click();
  await bob.getByText('Welcome: you are a member now.').waitFor();

  const lost = await person(t, at);
  await lost.goto('/console/sign-in');
  await lost.getByRole('link', { name: 'Forgot your password?' }).click();
  await look(lost, 'forgotten');
  const ask = async (email) => {
    await lost.goto('/console/forgotten');
    await lost.getByLabel('Email address').fill(email);
    await lost.getByRole('button', { name: 'Send the link' }).click();
    return (await lost.locator('main').textContent()).replace(/\s+/g, ' ');
  };
  const nobody = await ask('nobody@example.com');
  await look(lost);
  assert.equal(await ask('bob@example.com'), nobody, 'the same words for both');
  const reset = await eventually('the link is mailed', () => mails.shift());
  assert.equal(reset.to, 'bob@example.com');
  await lost.goto(link(reset));
  await lost.getByText('You are signed out everywhere else.').waitFor();
  await look(lost, 'reset');
  await lost.getByLabel('New password').fill('short');
  await lost.getByRole('button', { name: 'Choose it' }).click();
  await lost.locator('#wrong-password').waitFor();
  await lost.getByLabel('New password').fill('newer-vexed-otter-21');
  await lost.getByRole('button', { name: 'Choose it' }).click();
  await lost.getByRole('button', { name: 'Sign out' }).waitFor();
  await bob.goto('/console/racks');
  assert.equal(new URL(bob.url()).pathname, '/console/sign-in', 'signed out everywhere else');
  await bob.goto(link(reset));
  await bob.getByText('This link was used or has ended.', { exact: false }).waitFor();
  assert.deepEqual(mails, [], 'none for who has no account');

  // The administrator's way, without mail.
  const { link: made } = await at.admin('user', 'reset-link', 'bob@example.com', '--url', at.url);
  await bob.goto(made);
  await bob.getByLabel('New password').fill('third-vexed-otter-22');
  await bob.getByRole('button', { name: 'Choose it' }).click();
  await bob.getByRole('button', { name: 'Sign out' }).waitFor();
});

test('the originals’ rule for passwords, when it was chosen', async (t) => {
  const at = await startConsole(t, { args: ['--password-rule', 'convox'] });
  const ada = await person(t, at);
  await ada.goto('/');
  await ada.getByText('At least 8 characters with upper and lower case, a digit and a symbol', { exact: false }).waitFor();
  for (const [password, says] of [['tall-vexed-otter', /upper and a lower case/], ['Sh0rt!', /too short/i], ['Password1!', /too easy/i]]) {
    await ada.getByLabel('Setup code').fill(at.code);
    await ada.getByLabel('Organization').fill('acme');
    await ada.getByLabel('Your email address').fill('ada@example.com');
    await ada.getByLabel('Password').fill(password);
    await ada.getByRole('button', { name: 'Set up' }).click();
    assert.match(await ada.locator('#wrong-password').textContent(), says, password);
  }
  await setUp(ada, at, { password: 'vX4!mQz9' });
});

test('a page says what it cannot do: no such page, not allowed, without mail', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at);
  await setUp(ada, at);
  for (const [path, status, title] of [
    ['/console/nope', 404, 'Not here'], ['/console/racks/acme/nope', 404, 'Not here'], ['/console/organizations/other', 404, 'Not here'],
    ['/console/installs/acme/nope', 404, 'Not here'], ['/console/activity?org=other', 404, 'Not here'],
  ]) {
    const answer = await ada.goto(path);
    assert.equal(answer.status(), status, path);
    await ada.getByRole('heading', { name: title }).waitFor();
    await look(ada);
  }
  const made = await at.admin('invitation', 'create', 'bob@example.com', '--org', 'acme', '--role', 'developer', '--url', at.url);
  const bob = await person(t, at);
  await bob.goto(made.link);
  await bob.getByLabel('Choose a password').fill(PASSWORD);
  await bob.getByRole('button', { name: 'Join acme' }).click();
  await bob.getByText('Welcome: you are a member now.').waitFor();
  for (const path of ['/console/racks/add', '/console/racks/install', '/console/activity?org=acme']) {
    assert.equal((await bob.goto(path)).status(), 403, path);
    await bob.getByRole('heading', { name: 'Not allowed' }).waitFor();
  }
  const refused = await at.admin('audit', 'list', '--org', 'acme', '--decision', 'refused');
  assert.deepEqual(refused, [], 'what concerns no organization is not in its log');
  const all = await at.admin('audit', 'list', '--decision', 'refused', '--actor', 'bob@example.com');
  assert.ok(all.length >= 3, JSON.stringify(all));
  await bob.getByRole('button', { name: 'Sign out' }).click();
  await bob.goto('/console/forgotten');
  await bob.getByText('This Console sends no mail.', { exact: false }).waitFor();
  await look(bob);
});
