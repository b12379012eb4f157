// Nothing on a page grows with what there is: lists have pages, and a search where they are long.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { later, look, open, person, setUp, shut, startConsole, startRack } from './harness.mjs';

after(shut);

/// So many at a time.
async function all(count, work) {
  let next = 0;
  await Promise.all(Array.from({ length: 8 }, async () => {
    while (next < count) await work(next++);
  }));
}

test('long lists have pages and a search', async (t) => {
  const at = await startConsole(t);
  const rack = await startRack(t, 'main');
  const ada = await person(t, at);
  const key = await setUp(ada, at);
  const { request } = await (await open()).newContext({ ignoreHTTPSErrors: true, baseURL: at.url });
  later(t, () => request.dispose());
  const api = async (path, data) => {
    const answer = await request.post(`/api/v1${path}`, { headers: { authorization: `Bearer ${key}` }, data });
    assert.equal(answer.status(), 200, `${path}: ${await answer.text()}`);
  };
  await api('/organizations/acme/racks', { name: 'main', host: rack.host, password: rack.password, pin: rack.fingerprint });
  await all(35, (i) => api('/organizations/acme/members', { email: `member-${i}@example.com`, role: 'developer' }));
  await all(55, (i) => api('/organizations', { name: `org-${i}` }));
  await all(28, async (i) => {
    const headers = { authorization: `Basic ${Buffer.from(`convox:${key}`).toString('base64')}`, rack: 'acme/main' };
    assert.equal((await request.post('/apps', { headers, form: { name: `app-${i}` } })).status(), 200);
  });
  await all(33, async (i) => {
    const form = { email: `guest-${i}@example.com`, role: 'developer' };
    const answer = await ada.request.post('/console/organizations/acme/invitations', { headers: { origin: at.url }, form });
    assert.equal(answer.status(), 200);
  });

  await ada.goto('/console/racks/acme/main');
  const apps = ada.getByRole('region', { name: 'Apps' }).getByRole('row');
  assert.equal(await apps.count(), 1 + 25);
  await look(ada);
  await ada.getByRole('navigation', { name: 'Pages of apps' }).getByRole('link', { name: 'Next' }).click();
  await ada.getByText('26–28 of 28').waitFor();
  assert.equal(await apps.count(), 1 + 3);
  await ada.getByLabel('Search by name').fill('app-2');
  await ada.getByRole('button', { name: 'Search' }).click();
  assert.equal(await apps.count(), 1 + 9);
  await ada.getByLabel('Search by name').fill('nothing');
  await ada.getByRole('button', { name: 'Search' }).click();
  await ada.getByText('No app has “nothing” in its name.', { exact: false }).waitFor();
  await look(ada);

  await ada.goto('/console/organizations/acme');
  const withdraw = ada.getByRole('button', { name: /^Withdraw/ });
  assert.equal(await withdraw.count(), 30);
  await ada.getByRole('link', { name: 'More invitations' }).click();
  assert.equal(await withdraw.count(), 3);
  const members = ada.getByRole('button', { name: /^Change the role/ });
  assert.equal(await members.count(), 30);
  await ada.getByRole('link', { name: 'More members' }).click();
  assert.equal(await members.count(), 6);

  await ada.goto('/console/organizations');
  assert.equal(await ada.getByRole('listitem').count(), 30);
  await ada.getByRole('link', { name: 'More organizations' }).click();
  assert.equal(await ada.getByRole('listitem').count(), 26);
  // Whoever is in many organizations types the name of one instead of choosing from a list without an end.
  await ada.goto('/console/racks/add');
  await ada.getByLabel('Organization').fill('not-there');
  await ada.locator('#name').fill('edge');
  await ada.locator('#host').fill(rack.host);
  await ada.getByLabel('Its password').fill(rack.password);
  await ada.getByRole('button', { name: 'Check the Rack' }).click();
  await ada.locator('#wrong-organization').waitFor();
  await look(ada);
  for (const path of ['racks', 'racks/acme/main', 'organizations', 'organizations/acme', 'activity', 'account', 'racks/add', 'racks/install']) {
    const { length } = await (await ada.request.get(`/console/${path}`)).body();
    assert.ok(length < 60 * 1024, `${path} has ${length} bytes`);
  }

  // A Rack that does not answer says so where its apps would be.
  await rack.kill();
  await ada.goto('/console/racks/acme/main');
  assert.match(await ada.locator('.wrong').first().textContent(), /refused|reach/i);
  await look(ada);
});
