// Starts the real programs and a real browser, and looks at every page that a test shows: accessibility, width, and that nothing is asked
// of another host.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { createWriteStream, existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

const run = promisify(execFile);
const checker = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
export const bin = process.env.CONVOX_BIN ?? assert.fail('CONVOX_BIN names the directory of the programs');
const pictures = process.env.CONVOX_SCREENSHOTS;

const endings = new WeakMap();

/// At the end of the test, the last first: a browser is shut before the server that it looks at.
export function later(t, end) {
  if (!endings.has(t)) {
    endings.set(t, []);
    t.after(async () => {
      for (const each of endings.get(t).reverse()) await each();
    });
  }
  endings.get(t).push(end);
}

/// A directory that is gone after the test.
export async function scratch(t) {
  const dir = await mkdtemp(join(tmpdir(), 'convox-browser-'));
  later(t, () => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  return dir;
}

/// A server of ours; its first lines are read until one fits each of `wanted`. `kill` ends it without a warning.
async function serve(t, program, args, env, wanted, log) {
  const child = spawn(join(bin, program), args, { env: { PATH: `${bin}:${process.env.PATH}`, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  child.stderr.pipe(createWriteStream(log, { flags: 'a' }));
  const gone = new Promise((resolve) => child.once('exit', resolve));
  later(t, async () => {
    child.kill('SIGTERM');
    await Promise.race([gone, new Promise((resolve) => setTimeout(resolve, 15_000).unref())]);
    child.kill('SIGKILL');
  });
  const kill = async () => {
    child.kill('SIGKILL');
    await gone;
  };
  const found = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const match = wanted[found.length].exec(line);
    if (match) found.push(match);
    if (found.length === wanted.length) return Object.assign(found, { kill });
  }
  assert.fail(`${program} ended before it was ready: ${await readFile(log, 'utf8')}`);
}

/// A new database on the PostgreSQL server that `CONVOX_TEST_POSTGRES` names; nothing without one.
async function postgres(t) {
  const server = process.env.CONVOX_TEST_POSTGRES;
  if (!server) return {};
  const name = `browser_${process.pid}_${Date.now()}`;
  await run('psql', [server, '-qc', `CREATE DATABASE ${name}`]);
  later(t, () => run('psql', [server, '-qc', `DROP DATABASE ${name}`]));
  return { CONVOX_DATABASE: server.replace(/[^/]*$/, name) };
}

/// A Console on a new database: a file, or with `shared` one of the PostgreSQL server if there is one.
export async function startConsole(t, { args = [], env = {}, listen = '127.0.0.1:0', shared = false } = {}) {
  const dir = await scratch(t);
  const data = join(dir, 'console');
  await mkdir(data, { mode: 0o700 });
  await run(join(bin, 'convox-console'), ['root-key', '--out', join(data, 'root.key')]);
  const database = shared ? await postgres(t) : {};
  const listening = /^listening on https:\/\/(\S+) fingerprint (\S+)/;
  const log = join(dir, 'console.log');
  const start = (at, wanted) => serve(t, 'convox-console', ['serve', '--listen', at, '--data', data, ...args], { ...database, ...env }, wanted, log);
  let running = await start(listen, [listening, /^setup code: (\S+)/]);
  const [[, host, fingerprint], [, code]] = running;
  /// `kill -9`, and the same again.
  const crash = async () => {
    await running.kill();
    running = await start(host, [listening]);
  };
  const admin = async (...words) => JSON.parse((await run(join(bin, 'convox-console'), [...words, '--data', data, '--json'], { env: { ...process.env, ...database } })).stdout);
  // Racks that the Console installed outlive it, as they should. This test's end with the test.
  later(t, async () => {
    for (const id of await readdir(join(data, 'racks')).catch(() => [])) {
      const [pid] = (await readFile(join(data, 'racks', id, 'pid'), 'utf8')).split(' ');
      try { process.kill(Number(pid), 'SIGTERM'); } catch { /* It has ended. */ }
      await stopApps(join(data, 'racks', id, 'data'));
    }
  });
  return { url: `https://${host}`, host, fingerprint, code, data, dir, admin, crash, log };
}

/// Apps and the router of a Rack outlive it, as they should. This test's end with the test. Refused until the Rack itself has ended.
async function stopApps(data) {
  if (!existsSync(data)) return;
  await eventually(`the apps and the router of ${data} have ended`, () =>
    run(join(bin, 'convox-rack'), ['stop-apps', '--data', data]).then(() => true, () => false));
}

/// A Rack of its own.
export async function startRack(t, name) {
  const dir = await scratch(t);
  // Endings run in the other order: after the Rack's own.
  later(t, () => stopApps(join(dir, 'rack')));
  await writeFile(join(dir, 'password'), 'correct-rack-password-1', { mode: 0o600 });
  const args = ['serve', '--listen', '127.0.0.1:0', '--data', join(dir, 'rack'), '--name', name, '--password-file', join(dir, 'password')];
  const running = await serve(t, 'convox-rack', args, {}, [/^listening on https:\/\/(\S+) fingerprint (\S+)/], join(dir, 'rack.log'));
  const [[, host, fingerprint]] = running;
  return { host, fingerprint, dir, kill: running.kill, password: 'correct-rack-password-1' };
}

/// The command line with a configuration of its own.
export async function commandLine(t) {
  const env = { PATH: process.env.PATH, HOME: await scratch(t), CONVOX_CONFIG: await scratch(t) };
  const convox = async (args, options = {}) => {
    const running = run(join(bin, 'convox'), args, { env, timeout: 60_000, ...options });
    running.child.stdin.end();
    return running;
  };
  convox.start = (args) => spawn(join(bin, 'convox'), args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  return convox;
}

let browser;

/// The browser, one for all tests of a file.
export async function open() {
  browser ??= await chromium.launch({
    executablePath: process.env.CONVOX_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP *.convox.test 127.0.0.1', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', ...(process.env.CONVOX_CHROMIUM_ARGS?.split(' ') ?? [])],
  });
  return browser;
}

export async function shut() {
  await browser?.close();
  browser = undefined;
}

/// Somebody with a browser of their own. What a page asks of another host, and what its policy forbids it, is a fault.
/// With `local`, the page after an approval may lead to a command line on this machine.
export async function person(t, at, { script = true, agent, local = false } = {}) {
  const context = await (await open()).newContext({
    ignoreHTTPSErrors: true, baseURL: at.url, viewport: { width: 1180, height: 820 }, javaScriptEnabled: script, userAgent: agent,
    permissions: ['clipboard-read', 'clipboard-write'], acceptDownloads: true,
  });
  const faults = [];
  context.on('request', (request) => {
    const isLocal = local && request.isNavigationRequest() && /^http:\/\/127\.0\.0\.1:\d+\//.test(request.url());
    if (!isLocal && !request.url().startsWith(`${at.url}/`)) faults.push(`asked another host: ${request.url()}`);
  });
  context.on('console', (message) => {
    // A form that was not accepted is answered with 4xx, which the browser writes down too.
    if (message.type() === 'error' && !/status of 4\d\d/.test(message.text())) faults.push(message.text());
  });
  context.on('weberror', (error) => faults.push(String(error.error())));
  later(t, async () => {
    await context.close();
    assert.deepEqual(faults, [], 'what pages must not do');
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  return page;
}

const seen = new Set();

const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/// What axe-core finds wrong with the page as it is now.
async function violations(page) {
  const { violations } = await page.evaluate((values) => axe.run(document, { runOnly: values, resultTypes: ['violations'] }), rules);
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).join(' | ')}`);
}

/// Looks at the page as it is now: no violation of WCAG 2.2 AA in light and dark and on a telephone, no scrolling sideways at 360 px, and a
/// picture if there is a name for it.
export async function look(page, name) {
  const wide = page.viewportSize();
  const narrow = { width: 360, height: 740 };
  // The policy of the pages lets no other script in; the protocol of the browser does.
  await page.evaluate(checker);
  for (const [colorScheme, size] of [['light', wide], ['dark', wide], ['dark', narrow]]) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.setViewportSize(size);
    assert.deepEqual(await violations(page), [], `accessibility of ${page.url()} (${colorScheme}, ${size.width} px)`);
  }
  const width = await page.evaluate(() => document.scrollingElement.scrollWidth);
  assert.ok(width <= 360, `${page.url()} is ${width} px wide on a screen of 360`);
  if (pictures && name && !seen.has(name)) await picture(page, `${name}-narrow`, 'dark');
  await page.setViewportSize(wide);
  if (pictures && name && !seen.has(name)) await picture(page, name, 'light');
  seen.add(name);
  await page.emulateMedia({ colorScheme: 'light' });
}

async function picture(page, name, colorScheme) {
  await mkdir(pictures, { recursive: true });
  await page.emulateMedia({ colorScheme });
  await page.screenshot({ path: join(pictures, `${name}.png`), animations: 'disabled', caret: 'hide', fullPage: process.env.CONVOX_SCREENSHOTS_WHOLE === '1' });
}

/// Presses the tab key until the focus is on what fits, and is seen there; only what the keyboard reaches can be used with it.
export async function tabTo(page, locator) {
  for (let i = 0; i < 80; i++) {
    const { is, seen, what } = await locator.evaluate((wanted) => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      // Behind the last stop the focus leaves the page, and comes back to its beginning.
      const seen = element === document.body || (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2);
      return { is: element === wanted, seen, what: element.outerHTML.slice(0, 120) };
    });
    assert.ok(i === 0 || seen, `the focus is not seen on ${what}`);
    if (is) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`the keyboard does not reach ${locator}`);
}

/// Asks until `probe` gives something.
export async function eventually(what, probe, ms = 15_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) assert.fail(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const PASSWORD = 'tall-vexed-otter-19';

/// The session that somebody's browser has, among its other cookies.
export const session = async (page) => (await page.context().cookies()).find(({ name }) => name === '__Host-convox')?.value;

/// First run, by hand.
export async function setUp(page, at, { organization = 'acme', email = 'ada@example.com', password = PASSWORD } = {}) {
  await page.goto('/');
  await page.getByLabel('Setup code').fill(at.code);
  await page.getByLabel('Organization').fill(organization);
  await page.getByLabel('Your email address').fill(email);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Set up' }).click();
  await page.getByRole('heading', { name: 'Your new API key' }).waitFor();
  return (await page.locator('#key').textContent()).trim();
}

export async function signIn(page, email, password = PASSWORD) {
  await page.goto('/console/sign-in');
  await page.getByLabel('Email address').fill(email);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.getByRole('button', { name: 'Sign out' }).first().waitFor();
}

/// The code of an authenticator app with that secret, so many steps from now.
export function code(secret, steps = 0) {
  const bits = [...secret.replaceAll(' ', '')].map((char) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(char).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const hash = createHmac('sha1', key).update(counter).digest();
  return String((hash.readUInt32BE(hash[19] & 15) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}
