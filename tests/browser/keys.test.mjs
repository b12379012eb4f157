// Deploy keys of an organization: made with limits, shown once, rolled and revoked, without a mouse.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { later, look, open, person, setUp, shut, startConsole, startRack, tabTo } from './harness.mjs';

after(shut);

test('deploy keys are made with limits, shown once, rolled and revoked by keyboard alone', async (t) => {
  const at = await startConsole(t);
  const rack = await startRack(t, 'main');
  const ada = await person(t, at);
  const own = await setUp(ada, at);
  const { keyboard } = ada;
  const press = async (locator) => {
    await tabTo(ada, locator);
    await keyboard.press('Enter');
  };
  const type = async (label, text) => {
    await tabTo(ada, ada.getByLabel(label, { exact: true }));
    await keyboard.press('Control+A');
    await keyboard.type(text);
  };
  const { request } = await (await open()).newContext({ ignoreHTTPSErrors: true, baseURL: at.url });
  later(t, () => request.dispose());
  const added = await request.post('/api/v1/organizations/acme/racks', {
    headers: { authorization: `Bearer ${own}` }, data: { name: 'main', host: rack.host, password: rack.password, pin: rack.fingerprint },
  });
  assert.equal(added.status(), 200);
  /// What a machine with that key is answered.
  const use = async (key, path = '/apps') => {
    const authorization = `Basic ${Buffer.from(`convox:${key}`).toString('base64')}`;
    return (await request.get(path, { headers: { authorization, rack: 'acme/main' } })).status();
  };
  const shown = async () => {
    await ada.getByRole('heading', { name: 'Your new API key' }).waitFor();
    return (await ada.locator('#key').textContent()).trim();
  };
  const list = async () => {
    await ada.goto('/console/organizations/acme');
    await press(ada.getByRole('link', { name: 'Deploy keys' }));
    await ada.getByRole('heading', { name: 'Deploy keys', exact: true }).waitFor();
  };
  const rows = ada.getByRole('region', { name: 'Keys of acme' }).getByRole('listitem');

  await list();
  await ada.getByText('None yet.').waitFor();
  await look(ada);
  // A mistake is told at its field, and nothing that was typed is lost.
  await type('Name', 'ci');
  await tabTo(ada, ada.getByLabel('May'));
  await keyboard.type('read');
  await type('Racks', 'main');
  await type('Apps', 'shop');
  await type('From networks', '127.0.0.1/8');
  await type('Days until it ends', '30');
  await keyboard.press('Enter');
  await ada.locator('#wrong-networks').waitFor();
  assert.equal(await ada.evaluate(() => document.activeElement.id), 'networks');
  assert.deepEqual(await Promise.all(['name', 'preset', 'racks', 'apps', 'days'].map((id) => ada.locator(`#${id}`).inputValue())), ['ci', 'read-only', 'main', 'shop', '30']);
  await look(ada);
  await type('From networks', '127.0.0.0/8 192.0.2.0/24');
  const answer = ada.waitForResponse((response) => response.request().method() === 'POST');
  await keyboard.press('Enter');
  const first = await shown();
  assert.match(first, /^cxd_/);
  await look(ada);
  // Shown once: the browser keeps nothing that going back could show, and the list does not have it.
  assert.match((await answer).headers()['cache-control'], /no-store/);
  await list();
  assert.equal(await rows.count(), 1);
  const row = await rows.first().textContent();
  for (const part of ['ci', `…${first.slice(-4)}`, 'main', 'shop', '127.0.0.0/8', 'by ada@example.com', 'never used', 'ends']) assert.ok(row.includes(part), `${part} in ${row}`);
  assert.ok(!(await ada.content()).includes(first));

  // It does what it may, and the list says when.
  assert.equal(await use(first, '/apps/shop'), 404, 'the Rack has no such app');
  assert.equal(await use(first, '/apps/other'), 403);
  await list();
  await rows.filter({ hasText: 'last used' }).waitFor();
  await look(ada);

  const overlap = ada.getByLabel('How long the old key ci stays good');
  await tabTo(ada, overlap);
  await keyboard.press('ArrowDown');
  await keyboard.press('ArrowDown');
  assert.equal(await overlap.inputValue(), '24');
  await press(ada.getByRole('button', { name: 'Roll ci' }));
  const second = await shown();
  assert.notEqual(second, first);
  assert.deepEqual([await use(first, '/apps/shop'), await use(second, '/apps/shop')], [404, 404], 'both are good during the overlap');
  await list();
  assert.equal(await rows.count(), 2);
  await rows.filter({ hasText: 'rolled: good until its end' }).waitFor();
  await look(ada);
  await press(rows.filter({ hasText: `…${second.slice(-4)}` }).getByRole('button', { name: 'Revoke ci' }));
  await ada.getByText('The key is revoked.').waitFor();
  assert.equal(await use(second, '/apps/shop'), 401, 'dead at once');
});
