// A Rack that moves from one organization to another is in one of them at every moment, whatever happens to the Console.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { eventually, person, setUp, shut, startConsole, startRack } from './harness.mjs';

after(shut);

const KILLS = Number(process.env.CONVOX_TEST_MOVES ?? 12);

test('kill -9 while a Rack moves leaves it whole in one organization, and moving it again goes on', async (t) => {
  const at = await startConsole(t);
  const rack = await startRack(t, 'main');
  const ada = await person(t, at);
  await setUp(ada, at);
  await at.admin('org', 'create', 'labs');
  await at.admin('member', 'add', 'ada@example.com', '--org', 'labs', '--role', 'administrator');
  const password = `${rack.dir}/password`;
  await at.admin('rack', 'add', 'main', '--org', 'acme', '--host', rack.host, '--password-file', password, '--pin', rack.fingerprint);
  await eventually('the browser may work in both', async () => (await ada.goto('/console/organizations/labs')).status() === 200);
  let moved = 0;
  const move = async (from, to) => {
    const form = { organization: to };
    const answer = await ada.request.post(`/console/racks/${from}/main/move`, { headers: { origin: at.url }, form, maxRedirects: 0 });
    return answer.status() === 303;
  };
  const where = async () => {
    const racks = await at.admin('rack', 'list');
    assert.equal(racks.length, 1, 'it is never in neither, and never in both');
    return racks[0].organization;
  };
  for (let round = 0; round < KILLS; round++) {
    // To and fro, as fast as it goes, until the Console is killed in the middle of it.
    let last;
    let stop = false;
    const moving = (async () => {
      for (let [from, to] = await where() === 'acme' ? ['acme', 'labs'] : ['labs', 'acme']; !stop; [from, to] = [to, from]) {
        if (!await move(from, to).catch(() => false)) return;
        moved += 1;
        last = to;
      }
    })();
    await new Promise((resolve) => setTimeout(resolve, 150 + Math.random() * 300));
    const crashing = at.crash();
    stop = true;
    await moving;
    const confirmed = last;
    await crashing;
    const org = await where();
    if (confirmed) t.diagnostic(`round ${round}: last confirmed in ${confirmed}, found in ${org}`);
    // Its password opens where it is now: the page asks the Rack for its apps.
    await ada.goto(`/console/racks/${org}/main`);
    await ada.getByText('None yet. Deploy one', { exact: false }).waitFor();
    const other = org === 'acme' ? 'labs' : 'acme';
    assert.equal((await ada.goto(`/console/racks/${other}/main`)).status(), 404);
    // What was cut off is done again, or was done.
    assert.ok(await move(org, other), `moved on from ${org}`);
    assert.equal(await where(), other);
  }
  assert.ok(moved > KILLS, `only ${moved} moves were under way: the test saw nothing`);
});
