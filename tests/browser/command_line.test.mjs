// Signing a command line in from the pages: by the browser on its machine, and by a code on another device; with the real command line.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createInterface } from 'node:readline';
import { PASSWORD, code as totp, commandLine, eventually, look, person, setUp, shut, startConsole } from './harness.mjs';

after(shut);

/// A `convox login` that waits; `shown` is the address or code that it shows.
async function login(at, convox, ...args) {
  const child = convox.start(['login', at.host, '--fingerprint', at.fingerprint, ...args]);
  const lines = [];
  const waiting = new Promise((resolve) => child.once('exit', resolve));
  let found;
  const shown = new Promise((resolve) => { found = resolve; });
  createInterface({ input: child.stderr }).on('line', (line) => {
    lines.push(line);
    if (line.startsWith('  ')) found(line.trim());
  });
  child.stdout.resume();
  return { shown: await shown, ended: async () => ({ code: await waiting, said: lines.join('\n') }) };
}

test('a person signs their command line in, is asked first, and finds its key in their account', async (t) => {
  const at = await startConsole(t, { shared: true });
  const ada = await person(t, at, { local: true });
  await setUp(ada, at);
  await ada.getByRole('button', { name: 'Sign out' }).click();
  await ada.getByRole('heading', { name: 'Sign in' }).waitFor();
  const convox = await commandLine(t);

  // Not signed in yet: through the sign-in, and back to the question with all that came along.
  const first = await login(at, convox, '--no-browser');
  await ada.goto(first.shown);
  await ada.getByLabel('Email address').fill('ada@example.com');
  await ada.getByLabel('Password').fill(PASSWORD);
  await ada.getByRole('button', { name: 'Sign in' }).click();
  await ada.getByRole('heading', { name: 'Sign in a command line?' }).waitFor();
  await look(ada, 'command-line');
  const key = (await ada.locator('dd code').textContent()).trim();
  assert.equal(await ada.getByLabel('The key lives for').inputValue(), '90');
  await ada.getByLabel('The key lives for').selectOption('30');
  await ada.getByRole('button', { name: 'Approve' }).click();
  await ada.getByRole('heading', { name: 'The command line is signed in' }).waitFor();
  assert.equal(new URL(ada.url()).origin, at.url, 'the address with the code is not where the browser stays');
  await look(ada, 'command-line-done');
  const { code, said } = await first.ended();
  assert.equal(code, 0, said);
  assert.match(said, /Logged in as ada@example.com/);

  await ada.goto('/console/account');
  const row = ada.getByRole('row', { name: new RegExp(key) });
  await row.getByText('in 1 month').or(row.getByText('in 30 days')).waitFor();
  const { stdout } = await convox(['whoami', '--json']);
  assert.equal(JSON.parse(stdout).key_name, key);
  await ada.getByRole('button', { name: `Revoke ${key}` }).click();
  await ada.getByText('The key is revoked.').waitFor();
  await assert.rejects(convox(['whoami']), /401/);

  // No.
  const second = await login(at, convox, '--no-browser');
  await ada.goto(second.shown);
  await ada.getByRole('button', { name: 'Deny' }).click();
  const denied = await second.ended();
  assert.equal(denied.code, 1);
  assert.match(denied.said, /denied/);
  await ada.getByText('Nothing was signed in.').waitFor();
});

test('whoever has a second factor gives it before they are asked', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at, { local: true });
  await setUp(ada, at);
  await ada.goto('/console/account/factors/totp');
  const secret = (await ada.locator('#secret').textContent()).trim();
  await ada.getByLabel('The code that it shows now').fill(totp(secret));
  await ada.getByRole('button', { name: 'Add it' }).click();
  await ada.getByRole('heading', { name: 'Your recovery codes' }).waitFor();
  const [recovery] = (await ada.locator('#codes').textContent()).trim().split('\n');
  await ada.getByRole('button', { name: 'Sign out' }).click();
  await ada.getByRole('heading', { name: 'Sign in' }).waitFor();
  const convox = await commandLine(t);
  const waiting = await login(at, convox, '--no-browser');
  await ada.goto(waiting.shown);
  await ada.getByLabel('Email address').fill('ada@example.com');
  await ada.getByLabel('Password').fill(PASSWORD);
  await ada.getByRole('button', { name: 'Sign in', exact: true }).click();
  // Half signed in: the page is not shown, and nothing is approved.
  await ada.getByRole('heading', { name: 'Prove who you are' }).waitFor();
  const half = await ada.request.get(waiting.shown, { maxRedirects: 0 });
  assert.equal(half.status(), 303);
  await ada.getByLabel('Code of your authenticator app').fill(recovery);
  await ada.getByRole('button', { name: 'Go on' }).click();
  await ada.getByRole('button', { name: 'Approve' }).click();
  await ada.getByRole('heading', { name: 'The command line is signed in' }).waitFor();
  const { code, said } = await waiting.ended();
  assert.equal(code, 0, said);
});

test('the pages work without script, and a page of another site approves nothing', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at, { script: false, local: true });
  await setUp(ada, at);
  const convox = await commandLine(t);
  const waiting = await login(at, convox, '--no-browser');
  await ada.goto(waiting.shown);
  const fields = Object.fromEntries(await ada.locator('form input[type=hidden]').evaluateAll((all) => all.map((field) => [field.name, field.value])));
  for (const headers of [{ origin: 'https://evil.example' }, { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }, {}]) {
    const answer = await ada.request.post('/console/authorize', { headers, form: { ...fields, days: 90, decision: 'approve' } });
    assert.equal(answer.status(), 403);
  }
  await ada.getByRole('button', { name: 'Approve' }).click();
  await ada.getByRole('heading', { name: 'The command line is signed in' }).waitFor();
  const { code, said } = await waiting.ended();
  assert.equal(code, 0, said);
});

test('a code signs a machine in from another device, which shows who asks and from where', async (t) => {
  const at = await startConsole(t, { shared: true });
  const ada = await person(t, at);
  await setUp(ada, at);
  const convox = await commandLine(t);
  const waiting = await login(at, convox, '--device', '--account', 'work');
  assert.match(waiting.shown, /^[B-Z]{5}-[B-Z]{5}$/);
  await ada.goto('/console/device');
  await look(ada, 'device');
  await ada.getByLabel('Code that it shows').fill('BBBBB-BBBBB');
  await ada.getByRole('button', { name: 'Go on' }).click();
  await ada.getByText('No machine waits for this code').waitFor();
  await look(ada);
  await ada.getByLabel('Code that it shows').fill(waiting.shown.toLowerCase().replace('-', ' '));
  await ada.getByRole('button', { name: 'Go on' }).click();
  await ada.getByRole('heading', { name: 'Sign in this machine?' }).waitFor();
  await ada.getByText('127.0.0.1').waitFor();
  await look(ada, 'device-asks');
  await ada.getByRole('button', { name: 'Approve' }).click();
  await ada.getByRole('heading', { name: 'The machine is signed in' }).waitFor();
  await look(ada, 'device-done');
  const { code, said } = await waiting.ended();
  assert.equal(code, 0, said);
  const { stdout } = await convox(['accounts', '--json']);
  assert.deepEqual(JSON.parse(stdout).map(({ account, email, active }) => [account, email, active]), [['work', 'ada@example.com', true]]);

  // Somebody who guesses is stopped, though signed in.
  for (let i = 0; i < 5; i++) await ada.request.post('/console/device', { headers: { origin: at.url }, form: { code: `CCCCC-CCCC${'BCDFG'[i]}` } });
  const answer = await ada.request.post('/console/device', { headers: { origin: at.url }, form: { code: 'DDDDD-DDDDD' } });
  assert.equal(answer.status(), 429);
  await ada.goto('/console/activity');
  await eventually('both ends are in the activity', async () => {
    const events = await at.admin('audit', 'list', '--limit', '100');
    const has = (action) => events.some((event) => event.action === action);
    return has('DeviceAuthorize') && has('DeviceApprove') && events.some((event) => event.rule === 'wrong-code');
  });
});
