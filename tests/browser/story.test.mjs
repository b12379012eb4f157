// One organization from its first minute on: what a platform team does with the Console in its first week.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PASSWORD, commandLine, eventually, later, look, person, session, setUp, shut, signIn, startConsole, startRack, tabTo } from './harness.mjs';

after(shut);

test('from the setup code to a deployed app, and everything in between', async (t) => {
  const at = await startConsole(t, { shared: true });
  const ada = await person(t, at);
  const convox = await commandLine(t);
  let key;
  let failed = false;
  // Each step stands on the one before.
  const step = (name, play) => t.test(name, { skip: failed && 'an earlier step failed' }, async (t) => {
    failed = true;
    await play(t);
    failed = false;
  });
  later(t, () => convox(['apps', 'delete', 'hello']).catch(() => {}));

  await step('the setup page wants the code that the server printed', async () => {
    await ada.goto('/');
    assert.equal(new URL(ada.url()).pathname, '/console/setup');
    await look(ada, 'setup');
    await ada.getByLabel('Setup code').fill('cxs_wrong');
    await ada.getByLabel('Organization').fill('acme');
    await ada.getByLabel('Your email address').fill('ada@example.com');
    await ada.getByLabel('Password').fill(PASSWORD);
    await ada.getByRole('button', { name: 'Set up' }).click();
    await ada.locator('#wrong-code').waitFor();
    await look(ada);
    for (const [password, says] of [['short', /too short/i], ['passwordpassword', /too easy/i]]) {
      await ada.getByLabel('Setup code').fill(at.code);
      await ada.getByLabel('Password').fill(password);
      await ada.getByRole('button', { name: 'Set up' }).click();
      assert.match(await ada.locator('#wrong-password').textContent(), says);
    }
    key = await setUp(ada, at);
    assert.equal(await ada.locator('#login').textContent(), `convox login ${at.host} --password ${key}`);
    await look(ada);
    await ada.goto('/console/setup');
    assert.notEqual(new URL(ada.url()).pathname, '/console/setup', 'there is no second first run');
  });

  await step('a Console without Racks says what to do', async () => {
    await ada.goto('/console');
    await ada.getByRole('heading', { name: 'No Racks yet' }).waitFor();
    await look(ada, 'racks-empty');
  });

  await step('signing out and in, by keyboard alone', async () => {
    await ada.getByRole('button', { name: 'Sign out' }).click();
    await ada.getByRole('heading', { name: 'Sign in' }).waitFor();
    await look(ada, 'sign-in');
    await ada.goto('/console/account');
    assert.equal(new URL(ada.url()).search, '?next=/console/account');
    await ada.getByLabel('Email address').focus();
    await ada.keyboard.type('ada@example.com');
    await tabTo(ada, ada.getByLabel('Password'));
    await ada.keyboard.type('not-her-password');
    await ada.keyboard.press('Enter');
    await ada.getByText('The address or the password is wrong.').waitFor();
    await look(ada);
    await tabTo(ada, ada.getByLabel('Password'));
    await ada.keyboard.type(PASSWORD);
    await ada.keyboard.press('Enter');
    await ada.getByRole('heading', { name: 'Account' }).waitFor();
    await look(ada, 'account');
  });

  await step('named keys with an end, shown once, revoked', async () => {
    const form = async (name, days) => {
      await ada.locator('#name').fill(name);
      await ada.getByLabel('Days until it ends').fill(days);
      await ada.getByRole('button', { name: 'Make a key' }).click();
    };
    await form('laptop', 'soon');
    await ada.locator('#wrong-days').waitFor();
    await look(ada);
    await form('laptop', '30');
    const laptop = (await ada.locator('#key').textContent()).trim();
    await ada.getByRole('link', { name: 'I have it' }).click();
    await form('laptop', '');
    await ada.locator('#wrong-name').waitFor();
    await ada.goto('/console/account');
    await convox(['login', at.host, '--password', laptop]);
    await eventually('the use of a key is shown', async () => {
      await ada.reload();
      return (await ada.getByRole('row', { name: /laptop/ }).textContent()).includes('just now');
    });
    await ada.getByRole('button', { name: 'Revoke laptop' }).click();
    await ada.getByText('The key is revoked.', { exact: false }).waitFor();
    await assert.rejects(convox(['racks']), /refused|invalid|401|revoked/i);
  });

  await step('signed-in devices, one and all', async (t) => {
    const phone = await person(t, at, { agent: 'Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0' });
    await signIn(phone, 'ada@example.com');
    await ada.goto('/console/account');
    await ada.getByRole('button', { name: 'Sign out Firefox on Android' }).click();
    await ada.getByText('That device is signed out.').waitFor();
    await phone.goto('/console/racks');
    assert.equal(new URL(phone.url()).pathname, '/console/sign-in');
    await signIn(phone, 'ada@example.com');
    await ada.goto('/console/account');
    await ada.getByRole('button', { name: 'Sign out all others' }).click();
    await ada.getByText('All other devices are signed out.').waitFor();
    await phone.goto('/console/racks');
    assert.equal(new URL(phone.url()).pathname, '/console/sign-in');
    await signIn(phone, 'ada@example.com');
    await ada.goto('/console/account');
    await ada.getByRole('button', { name: 'Sign out everywhere' }).click();
    await ada.getByRole('heading', { name: 'Sign in' }).waitFor();
    await phone.goto('/console/racks');
    assert.equal(new URL(phone.url()).pathname, '/console/sign-in');
    await signIn(ada, 'ada@example.com');
  });

  await step('a changed password signs all other devices out', async (t) => {
    const other = await person(t, at);
    await signIn(other, 'ada@example.com');
    await ada.goto('/console/account');
    const change = async (before, password) => {
      await ada.getByLabel('Current password').fill(before);
      await ada.getByLabel('New password').fill(password);
      await ada.getByRole('button', { name: 'Change password' }).click();
    };
    await change('not-her-password', 'other-vexed-otter-20');
    await ada.locator('#wrong-before').waitFor();
    await change(PASSWORD, 'ada@example.com');
    await ada.locator('#wrong-password').waitFor();
    const before = await session(ada);
    await change(PASSWORD, 'other-vexed-otter-20');
    await ada.getByText('Your password is changed', { exact: false }).waitFor();
    assert.notEqual(await session(ada), before, 'a new session id');
    await other.goto('/console/racks');
    assert.equal(new URL(other.url()).pathname, '/console/sign-in');
    await change('other-vexed-otter-20', PASSWORD);
    await ada.getByText('Your password is changed', { exact: false }).waitFor();
  });

  await step('organizations: made, renamed, one of several', async () => {
    await ada.getByRole('link', { name: 'Organizations' }).click();
    await look(ada, 'organizations');
    await ada.locator('#name').fill('Not A Name');
    await ada.getByRole('button', { name: 'Create organization' }).click();
    await ada.locator('#wrong-name').waitFor();
    await ada.locator('#name').fill('labz');
    const before = await session(ada);
    await ada.getByRole('button', { name: 'Create organization' }).click();
    await ada.getByRole('heading', { name: 'labz' }).waitFor();
    assert.notEqual(await session(ada), before, 'whoever may do more has a new session');
    await ada.getByLabel('New name').fill('acme');
    await ada.getByRole('button', { name: 'Rename' }).click();
    await ada.locator('#wrong-name').waitFor();
    await ada.getByLabel('New name').fill('labs');
    await ada.getByRole('button', { name: 'Rename' }).click();
    await ada.getByRole('heading', { name: 'labs' }).waitFor();
  });

  await step('an invitation makes a member, once; a removed member is out at once', async (t) => {
    const invite = async (email, role) => {
      await ada.goto('/console/organizations/acme');
      await ada.getByLabel('Email address').fill(email);
      await ada.getByLabel('Role', { exact: true }).selectOption(role);
      await ada.getByRole('button', { name: 'Invite' }).click();
      return (await ada.locator('#link').textContent()).trim();
    };
    const link = await invite('bob@example.com', 'developer');
    await look(ada);
    await ada.getByRole('link', { name: 'Done' }).click();
    await look(ada, 'organization');

    const bob = await person(t, at);
    await bob.goto(link);
    await bob.getByRole('heading', { name: 'Join acme' }).waitFor();
    assert.ok(!bob.url().includes('cxi'), 'the code does not stay in the address');
    await look(bob, 'invitation');
    await bob.getByLabel('Choose a password').fill('bob@example.com');
    await bob.getByRole('button', { name: 'Join acme' }).click();
    await bob.locator('#wrong-password').waitFor();
    await bob.getByLabel('Choose a password').fill(PASSWORD);
    await bob.getByRole('button', { name: 'Join acme' }).click();
    await bob.getByText('Welcome: you are a member now.').waitFor();
    assert.equal(await bob.getByRole('button', { name: 'Invite' }).count(), 0, 'a developer invites nobody');
    await bob.goto('/console/activity');
    await bob.getByText('You are neither of any.', { exact: false }).waitFor();
    await look(bob);
    const late = await person(t, at);
    await late.goto(link);
    await late.getByText('This invitation was used', { exact: false }).waitFor();
    await look(late);


    // An invitation alone signs nobody in as somebody who has a password.
    await ada.goto('/console/organizations/labs');
    await ada.getByLabel('Email address').fill('bob@example.com');
    await ada.getByRole('button', { name: 'Invite' }).click();
    const second = (await ada.locator('#link').textContent()).trim();
    await late.goto(second);
    await late.getByLabel('Your password').fill('not-his-password');
    await late.getByRole('button', { name: 'Join labs' }).click();
    await late.locator('#wrong-password').waitFor();
    await bob.goto(second);
    await bob.getByRole('button', { name: 'Join labs' }).click();
    await bob.getByRole('heading', { name: 'labs' }).waitFor();

    // Nor as somebody who has none yet: they have an account.
    await at.admin('user', 'add', 'carl@example.com');
    await late.goto(await invite('carl@example.com', 'developer'));
    await late.getByText('carl@example.com has an account here.', { exact: false }).waitFor();
    assert.equal(await late.getByLabel('Choose a password').count(), 0);
    await look(late);
    await late.getByLabel('Your password').fill(PASSWORD);
    await late.getByRole('button', { name: 'Join acme' }).click();
    await late.locator('#wrong-password').waitFor();
    await ada.goto('/console/organizations/acme');
    await ada.getByRole('button', { name: 'Withdraw the invitation of carl@example.com' }).click();
    await ada.getByText('The invitation is withdrawn.').waitFor();

    // A role counts from the moment it is given.
    await ada.goto('/console/organizations/acme');
    await ada.getByLabel('Search by address').fill('BOB');
    await ada.getByRole('button', { name: 'Search' }).click();
    assert.equal(await ada.getByText('ada@example.com').count(), 1, 'only in the frame of the page');
    await ada.getByLabel('Role of bob@example.com', { exact: true }).selectOption('operator');
    await ada.getByRole('button', { name: 'Change the role of bob@example.com' }).click();
    await ada.getByText('The role is changed', { exact: false }).waitFor();
    await bob.goto('/console/activity');
    await bob.getByRole('heading', { name: 'Events, newest first' }).waitFor();

    await ada.getByText('Remove bob@example.com').first().click();
    await ada.getByRole('button', { name: 'Remove bob@example.com' }).click();
    await ada.getByText('They are no longer a member', { exact: false }).waitFor();
    await bob.goto('/console/organizations/acme');
    await bob.getByRole('heading', { name: 'Not here' }).waitFor();
    await look(bob);

    // The last administrator stays.
    await ada.goto('/console/organizations/acme');
    await ada.getByText('Leave ada@example.com').click();
    await ada.getByRole('button', { name: 'Leave acme' }).click();
    await ada.locator('#wrong-members').waitFor();

    const open = await invite('eve@example.com', 'administrator');
    await ada.getByRole('link', { name: 'Done' }).click();
    await ada.getByRole('button', { name: 'Withdraw the invitation of eve@example.com' }).click();
    await ada.getByText('The invitation is withdrawn.').waitFor();
    await late.goto(open);
    await late.getByText('This invitation was used', { exact: false }).waitFor();
  });

  await step('a Rack is installed in the browser, with its progress live', async () => {
    await ada.goto('/console/racks');
    await ada.getByRole('link', { name: 'Install a Rack' }).click();
    await look(ada, 'install');
    await ada.getByLabel('Organization').selectOption('acme');
    await ada.locator('#name').fill('Main!');
    await ada.getByRole('button', { name: 'Install' }).click();
    await ada.locator('#wrong-name').waitFor();

    // One that fails says why, and its log is kept.
    const homes = join(at.data, 'racks');
    await rm(homes, { recursive: true, force: true });
    await writeFile(homes, 'a file where Racks should live');
    await ada.locator('#name').fill('broken');
    await ada.getByRole('button', { name: 'Install' }).click();
    await ada.getByRole('link', { name: 'Try again' }).waitFor();
    assert.match(await ada.getByLabel('Progress').textContent(), /Failed: the directory could not be made/);
    await look(ada);
    await rm(homes);
    await ada.getByRole('link', { name: 'Try again' }).click();
    await ada.getByRole('link', { name: 'acme/broken' }).waitFor();

    // Its lines are held back for as long as the page is looked at, and then come by themselves.
    let go;
    const held = new Promise((resolve) => { go = resolve; });
    await ada.route('**/stream', async (route) => {
      await held;
      await route.continue();
    });
    await ada.getByLabel('Organization').selectOption('acme');
    await ada.locator('#name').fill('main');
    await ada.getByRole('button', { name: 'Install' }).click();
    await ada.getByRole('heading', { name: 'Installing acme/main' }).waitFor();
    await look(ada, 'install-progress');
    go();
    await ada.getByRole('link', { name: 'To the Rack' }).waitFor({ timeout: 30_000 });
    assert.match(await ada.getByLabel('Progress').textContent(), /Starting the Rack\.[^]*certificate sha256:[^]*Added to acme/);
    await ada.unroute('**/stream');
    await look(ada, 'install-done');
    await ada.getByRole('link', { name: 'To the Rack' }).click();
    await ada.getByText('None yet. Deploy one from your machine:').waitFor();
    await look(ada);
  });

  await step('the login line of the page logs the command line in; convox switch; deploy', async () => {
    await ada.goto('/console/account');
    await ada.getByRole('button', { name: 'Regenerate' }).click();
    await ada.getByRole('button', { name: 'Copy' }).first().click();
    await ada.getByRole('button', { name: 'Copied' }).waitFor();
    const line = await ada.evaluate(() => navigator.clipboard.readText());
    const words = line.split(' ');
    assert.deepEqual(words.slice(0, 4), ['convox', 'login', at.host, '--password']);
    await convox(words.slice(1));
    assert.match((await convox(['switch', 'acme/main'])).stdout, /Switched to acme\/main/);
    await convox(['apps', 'create', 'hello', '--wait'], { cwd: join(process.env.CONVOX_EXAMPLES, 'hello-web') });
    await convox(['env', 'set', 'GREETING=secret-greeting', '-a', 'hello']);
    await convox(['deploy', '-a', 'hello', '--description', 'Say hello', '--wait'], { cwd: join(process.env.CONVOX_EXAMPLES, 'hello-web') });
    key = words[4];
  });

  await step('apps of a Rack: what runs, releases, environment, live logs', async () => {
    await ada.goto('/console/racks/acme/main');
    await ada.getByRole('region', { name: 'Processes' }).getByText('hello').first().waitFor();
    await look(ada, 'rack');
    await ada.getByRole('link', { name: 'hello' }).click();
    await ada.getByRole('heading', { name: 'Processes' }).waitFor();
    await look(ada, 'app');
    assert.ok(!(await ada.content()).includes('secret-greeting'), 'values are hidden until asked for');
    await ada.getByRole('button', { name: 'Show the values' }).click();
    await ada.getByText('secret-greeting').waitFor();
    await look(ada);

    await ada.getByRole('link', { name: 'Logs' }).click();
    await ada.getByText('Live', { exact: true }).waitFor();
    const services = JSON.parse((await convox(['services', '-a', 'hello', '--json'])).stdout);
    await fetch(`http://${services[0].domain}/from-the-test`);
    await ada.getByText('GET /from-the-test', { exact: false }).waitFor();
    await look(ada, 'logs');

    const count = async () => (await ada.getByRole('region', { name: 'Releases' }).getByRole('row').count()) - 1;
    await ada.getByRole('link', { name: 'Overview' }).click();
    const before = await count();
    await ada.getByRole('button', { name: /^Restart / }).first().click();
    await ada.getByText('The service is being restarted.').waitFor();
    await convox(['env', 'set', 'GREETING=other', '-a', 'hello']);
    await ada.goto('/console/racks/acme/main/apps/hello');
    assert.equal(await count(), before + 1);
    await ada.getByRole('button', { name: /^Promote / }).first().click();
    await ada.getByText('The release is being promoted', { exact: false }).waitFor();
    await eventually('the promoted release is active', async () => {
      await ada.goto('/console/racks/acme/main/apps/hello');
      return (await ada.getByRole('region', { name: 'Releases' }).getByRole('row').nth(1).textContent()).includes('active');
    }, 60_000);
    await ada.getByRole('button', { name: /^Roll back to / }).first().click();
    await ada.getByText('The release is being promoted', { exact: false }).waitFor();
    await eventually('the rollback is active', async () => {
      await ada.goto('/console/racks/acme/main/apps/hello');
      const first = await ada.getByRole('region', { name: 'Releases' }).getByRole('row').nth(1).textContent();
      return first.includes('active') && first.includes('rollback');
    }, 60_000);
    await ada.getByRole('button', { name: 'Show the values' }).click();
    await ada.getByText('secret-greeting').waitFor();
  });

  await step('a regenerated key refuses the old one at once, in a command that runs', async () => {
    const follower = convox.start(['logs', '-a', 'hello']);
    let said = '';
    follower.stdout.on('data', (data) => { said += data; });
    follower.stderr.on('data', (data) => { said += data; });
    const ended = new Promise((resolve) => follower.once('exit', resolve));
    await eventually('the log is followed', () => said.includes('listening'));
    await ada.goto('/console/account');
    await ada.getByRole('button', { name: 'Regenerate' }).click();
    const fresh = (await ada.locator('#key').textContent()).trim();
    assert.notEqual(fresh, key);
    // The page stands: from here on the old key is dead.
    const began = Date.now();
    await assert.rejects(convox(['racks']), /refused|invalid|401|revoked/i);
    assert.notEqual(await ended, 0, 'a stream that was cut is no success');
    assert.ok(Date.now() - began < 3_000, 'the open stream ended with the key');
    await convox(['login', at.host, '--password', fresh]);
    await convox(['racks']);
  });

  await step('a Rack is added by its address: asked first, its certificate shown and pinned', async (t) => {
    const rack = await startRack(t, 'edge');
    const ask = async (host, password) => {
      await ada.goto('/console/racks/add');
      await ada.getByLabel('Organization').selectOption('acme');
      await ada.locator('#name').fill('edge');
      await ada.locator('#host').fill(host);
      await ada.getByLabel('Its password').fill(password);
      await ada.getByRole('button', { name: 'Check the Rack' }).click();
    };
    await ada.goto('/console/racks/add');
    await look(ada, 'rack-add');
    await ask('127.0.0.1:1', 'x');
    assert.match(await ada.locator('#wrong-host').textContent(), /refused/i);
    await look(ada);
    await ask(rack.host, 'wrong-password');
    await ada.getByText(rack.fingerprint).first().waitFor();
    await look(ada, 'rack-certificate');
    await ada.getByRole('button', { name: 'Verify by the system’s authorities instead' }).click();
    await ada.locator('#wrong-host').waitFor();
    await ask(rack.host, 'wrong-password');
    await ada.getByRole('button', { name: 'Pin it and add the Rack' }).click();
    await ada.locator('#wrong-password').waitFor();
    await ask(rack.host, rack.password);
    await ada.getByRole('button', { name: 'Pin it and add the Rack' }).click();
    await ada.getByText('The Rack is added.').waitFor();
    await eventually('the list shows its health', async () => {
      await ada.goto('/console/racks?q=edge');
      return (await ada.getByRole('row', { name: /acme\/edge/ }).textContent()).includes('running');
    });
    await ada.goto('/console/racks');
    await look(ada, 'racks');

    await ada.goto('/console/racks/acme/edge');
    await ada.locator('#name').fill('main');
    await ada.getByRole('button', { name: 'Rename' }).click();
    await ada.locator('#wrong-name').waitFor();
    await ada.locator('#name').fill('rim');
    await ada.getByRole('button', { name: 'Rename' }).click();
    await ada.getByText('The Rack has its new name.').waitFor();
    await ada.getByText('by ada@example.com (RackRename)', { exact: false }).waitFor();
    await ada.getByLabel('Move to organization').selectOption('labs');
    await ada.getByRole('button', { name: 'Move', exact: true }).click();
    await ada.getByText('The Rack was moved.').waitFor();
    assert.equal(new URL(ada.url()).pathname, '/console/racks/labs/rim');
    assert.match((await convox(['racks'])).stdout, /labs\/rim\s+running/);

    await ada.getByRole('button', { name: 'Protect from removal' }).click();
    await ada.getByText('The Rack is protected.').waitFor();
    assert.equal(await ada.getByLabel(/^To remove it/).count(), 0);
    await assert.rejects(at.admin('rack', 'remove', 'rim', '--org', 'labs'), /protected/);
    await ada.getByRole('button', { name: 'Remove protection' }).click();
    await ada.getByLabel(/^To remove it/).fill('rim');
    await ada.getByRole('button', { name: 'Remove' }).click();
    await ada.locator('#wrong-typed').waitFor();
    await look(ada);
    await ada.getByLabel(/^To remove it/).fill('labs/rim');
    await ada.getByRole('button', { name: 'Remove' }).click();
    await ada.getByText('The Rack is removed from the Console', { exact: false }).waitFor();
  });

  await step('activity: who did what, where, when, by which rule; filtered and exported', async () => {
    await ada.goto('/console/activity?org=acme');
    await look(ada, 'activity');
    const rows = ada.getByRole('region').getByRole('row');
    await ada.getByLabel('Effect').selectOption('read-secret');
    await ada.getByLabel('App').fill('hello');
    await ada.getByRole('button', { name: 'Filter' }).click();
    const secrets = await rows.allTextContents();
    assert.ok(secrets.length > 2 && secrets.slice(1).every((row) => row.includes('ada@example.com') && row.includes('main: hello')), secrets.join('\n'));
    await ada.getByLabel('Effect').selectOption('console');
    await ada.getByLabel('App').fill('');
    await ada.getByLabel('Decision').selectOption('refused');
    await ada.getByRole('button', { name: 'Filter' }).click();
    await ada.getByLabel('Decision').selectOption('');
    await ada.getByLabel('From (UTC)').fill('2001-01-01');
    await ada.getByLabel('Until').fill('2001-01-02');
    await ada.getByRole('button', { name: 'Filter' }).click();
    await ada.getByText('Nothing fits.', { exact: false }).waitFor();
    await ada.getByLabel('Until').fill('');
    await ada.getByRole('button', { name: 'Filter' }).click();

    const read = async (name) => {
      const [download] = await Promise.all([ada.waitForEvent('download'), ada.getByRole('link', { name }).click()]);
      const chunks = [];
      for await (const chunk of await download.createReadStream()) chunks.push(chunk);
      return [download.suggestedFilename(), Buffer.concat(chunks).toString()];
    };
    const [jsonName, json] = await read('Export JSON');
    const events = JSON.parse(json);
    assert.equal(jsonName, 'activity-acme.json');
    assert.ok(events.some((event) => event.action === 'RackInstall' && event.actor === 'ada@example.com' && event.decision === 'allowed'));
    assert.ok(events.every((event) => event.effect === 'console'), 'the filter counts for the export');
    const [csvName, csv] = await read('Export CSV');
    assert.equal(csvName, 'activity-acme.csv');
    assert.equal(csv.trimEnd().split('\r\n').length, events.length + 1);
    assert.match(csv, /^at,actor,/);
  });

  await step('every page without script', async (t) => {
    const plain = await person(t, at, { script: false });
    await signIn(plain, 'ada@example.com');
    for (const path of ['racks', 'racks/acme/main', 'racks/acme/main/apps/hello', 'organizations/acme', 'activity', 'account']) {
      const answer = await plain.goto(`/console/${path}`);
      assert.equal(answer.status(), 200, path);
      assert.equal(await plain.locator('h1').count(), 1, path);
    }
    await plain.getByRole('button', { name: 'Regenerate' }).click();
    await plain.getByRole('heading', { name: 'Your new API key' }).waitFor();
    await convox(['login', at.host, '--password', (await plain.locator('#key').textContent()).trim()]);
  });

  await step('an app is deleted', async () => {
    await convox(['apps', 'delete', 'hello']);
    await eventually('the app is gone', async () => !(await convox(['apps'])).stdout.includes('hello'), 30_000);
  });
});
