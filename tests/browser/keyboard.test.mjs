// The work of a first day without a mouse: everything that is needed is reached by Tab, is seen when it has the focus, and does what Enter,
// Space and the arrows say.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { PASSWORD, look, person, shut, signIn, startConsole, tabTo } from './harness.mjs';

after(shut);

test('from the setup code to a Rack, its removal and the activity, by keyboard alone', async (t) => {
  const at = await startConsole(t);
  const ada = await person(t, at);
  const { keyboard } = ada;
  const press = async (locator, key = 'Enter') => {
    await tabTo(ada, locator);
    await keyboard.press(key);
  };
  const type = async (locator, text) => {
    await tabTo(ada, locator);
    await keyboard.press('Control+A');
    await keyboard.type(text);
  };
  const button = (name) => ada.getByRole('button', { name, exact: true });
  const link = (name) => ada.getByRole('link', { name, exact: true });

  await ada.goto('/');
  // The first field has the focus.
  await keyboard.type(at.code);
  await type(ada.getByLabel('Organization'), 'acme');
  await type(ada.getByLabel('Your email address'), 'ada@example.com');
  await type(ada.getByLabel('Password'), 'short');
  await keyboard.press('Enter');
  await ada.locator('#wrong-password').waitFor();
  // Whoever made a mistake is led to it.
  assert.equal(await ada.evaluate(() => document.activeElement.id), 'password');
  await keyboard.type(PASSWORD);
  await type(ada.getByLabel('Setup code'), at.code);
  await keyboard.press('Enter');
  await ada.getByRole('heading', { name: 'Your new API key' }).waitFor();
  await press(button('Copy').first());
  await button('Copied').waitFor();
  assert.match(await ada.evaluate(() => navigator.clipboard.readText()), new RegExp(`^convox login ${at.host} --password cxu_`));

  // The first stop of every page leads past the navigation.
  await ada.goto('/console/racks');
  await keyboard.press('Tab');
  assert.equal(await ada.evaluate(() => document.activeElement.textContent), 'Skip to content');
  await keyboard.press('Enter');
  await keyboard.press('Tab');
  assert.ok(await ada.evaluate(() => document.querySelector('main').contains(document.activeElement)));

  await press(link('Organizations'));
  await type(ada.locator('#name'), 'labs');
  await keyboard.press('Enter');
  await ada.getByRole('heading', { name: 'labs' }).waitFor();
  await type(ada.getByLabel('Email address'), 'bob@example.com');
  await tabTo(ada, ada.getByLabel('Role', { exact: true }));
  await keyboard.type('op');
  await press(button('Invite'));
  const invitation = (await ada.locator('#link').textContent()).trim();
  const bob = await person(t, at);
  await bob.goto(invitation);
  await bob.getByRole('heading', { name: 'Join labs' }).waitFor();
  await bob.keyboard.type(PASSWORD);
  await bob.keyboard.press('Enter');
  await bob.getByText('operator, since', { exact: false }).first().waitFor();
  await press(link('Done'));
  await tabTo(ada, ada.getByLabel('Role of bob@example.com', { exact: true }));
  await keyboard.press('ArrowUp');
  await press(ada.getByRole('button', { name: 'Change the role of bob@example.com' }), 'Space');
  await ada.getByText('developer, since', { exact: false }).waitFor();
  await press(ada.locator('summary', { hasText: 'End sessions' }), 'Space');
  await press(ada.getByRole('button', { name: 'Sign bob@example.com out everywhere' }));
  await ada.getByText('They are signed out everywhere', { exact: false }).waitFor();
  await bob.reload();
  await bob.getByRole('heading', { name: 'Sign in' }).waitFor();
  await press(ada.locator('summary', { hasText: 'Remove' }), 'Space');
  await press(ada.getByRole('button', { name: 'Remove bob@example.com' }));
  await ada.getByText('They are no longer a member', { exact: false }).waitFor();

  await press(link('Racks').first());
  await press(link('Install a Rack').first());
  await type(ada.locator('#name'), 'main');
  await press(button('Install'));
  const to_it = ada.getByRole('link', { name: 'To the Rack' });
  await to_it.waitFor({ timeout: 30_000 });
  await press(to_it);
  await press(button('Protect from removal'));
  await press(button('Remove protection'));
  await type(ada.getByLabel(/^To remove it/), 'acme/main');
  await keyboard.press('Enter');
  await ada.getByText('The Rack is removed from the Console', { exact: false }).waitFor();

  await press(link('Activity'));
  await tabTo(ada, ada.getByLabel('Effect'));
  await keyboard.type('con');
  await press(button('Filter'));
  await ada.getByText('RackRemove').waitFor();
  await look(ada);
  await press(button('Sign out').first());
  await ada.getByRole('heading', { name: 'Sign in' }).waitFor();
  await signIn(ada, 'ada@example.com');
});
