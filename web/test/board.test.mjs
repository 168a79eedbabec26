// The board in a browser. With BOARD_URL: the stories that hold for any server with a fleet. Without: all, against the mock.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { startMock } from '../mock/server.mjs';
import { eventually, lamps, launch, lights, list, open } from './browser.mjs';

const given = process.env.BOARD_URL?.replace(/\/$/, '');
/** How long any server may take until it has an incident that nobody has acknowledged. */
const INCIDENT_WAIT_MS = Number(process.env.BOARD_WAIT_SECONDS ?? 150) * 1000;

let browser;
let mock;
let tab;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());
afterEach(async () => {
  await tab?.close();
  await mock?.stop();
  tab = mock = undefined;
});

/** The board of a fresh mock, or of the given server. */
async function board({ path = '/', browserOptions, ...options } = {}) {
  if (!given) mock = await startMock(options);
  const url = given ?? mock.url;
  tab = await open(browser, url, path, browserOptions);
  return { url, page: tab.page };
}

const live = (page) => page.waitForSelector('[role=status][data-state=live]');
/** From here the page's timers run only when the story says so. */
async function stopClock(page) {
  await page.clock.install();
  await page.clock.pauseAt(Date.now() + 1_000);
}
const nothingWrong = () => assert.deepEqual(tab.wrong, []);

describe('any server', () => {
  test('every node and every GPU of the API is a lamp with its light, and says it in words', async () => {
    const { url, page } = await board();
    await live(page);
    await eventually(async () => {
      const [shown, told] = [await lamps(page), await lights(url)];
      return Object.keys(told).filter((cell) => shown[cell] !== told[cell]).concat(Object.keys(shown).filter((cell) => !(cell in told)));
    }, (different) => different.length === 0);
    const silent = await page.$$eval('[role=grid] [data-cell]', (cells) => cells.filter((c) => !/: (red|yellow|unknown|maintenance|healthy)$/.test(c.ariaLabel)).length);
    assert.equal(silent, 0);
    nothingWrong();
  });

  test('from the lamps to a GPU by keyboard: its last hour is drawn, and Escape leads back to the lamp', async () => {
    const { page } = await board();
    await live(page);
    await page.waitForSelector('[data-cell*="/"]');
    await page.keyboard.press('g');
    await page.keyboard.press('ArrowRight');
    const cell = await page.evaluate(() => document.activeElement.dataset.cell);
    assert.match(cell, /\/\d+$/);
    await page.keyboard.press('Enter');
    await page.waitForURL(`**/nodes/${cell.replace('/', '/gpus/')}`);
    await page.waitForSelector('figure[aria-label="Temperature over time"] canvas');
    const inked = () => page.$eval('figure[aria-label="Temperature over time"] canvas', (canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      // Strong blue: the first line's colour; axes and grid are grey.
      let n = 0;
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 120 && data[i + 2] > data[i] + 60) n += 1;
      return n;
    });
    await eventually(inked, (n) => n > 20);
    await page.keyboard.press('Escape');
    await eventually(() => page.evaluate(() => document.activeElement?.dataset.cell), (focused) => focused === cell);
    nothingWrong();
  });

  test('a link to a node whose name has dots leads to the board, as every link does', async () => {
    const { url, page } = await board({ path: '/nodes/gpu-1.cluster.internal' });
    await live(page);
    await page.getByText('There is no node gpu-1.cluster.internal').waitFor();
    assert.equal((await fetch(`${url}/assets/none.js`)).status, 404);
    nothingWrong();
  });

  test('the most urgent incident that nobody has is acknowledged by keyboard', { timeout: INCIDENT_WAIT_MS + 30_000 }, async () => {
    const { url, page } = await board();
    await live(page);
    const card = '.rail article:not(.taken)';
    await page.waitForSelector(card, { timeout: INCIDENT_WAIT_MS });
    await page.focus(card);
    const id = await page.getAttribute(card, 'data-incident');
    await page.keyboard.press('a');
    await page.waitForSelector('dialog[open]');
    await page.keyboard.type('looking at it');
    await page.keyboard.press('Enter');
    await page.waitForSelector(`.rail article.taken[data-incident="${id}"]`);
    const told = await (await fetch(`${url}/api/v1/incidents/${id}`)).json();
    assert.ok(told.acknowledged_at);
    assert.ok(told.timeline.some((entry) => entry.note?.includes('looking at it')));
    nothingWrong();
  });
});

describe('the mock', { skip: given ? 'needs the mock' : false }, () => {
  test('a lamp follows the stream', async () => {
    const { page } = await board();
    await live(page);
    // No poll comes.
    await stopClock(page);
    mock.force(mock.fleet.gpu('n01', 3), 'red');
    await page.waitForSelector('[data-cell="n01/3"] .lamp[data-light=red]');
    assert.equal(await page.getAttribute('[data-cell="n01/3"]', 'aria-label'), 'n01 GPU 3: red');
    nothingWrong();
  });

  test('an incident is closed by keyboard, with its reason', async () => {
    const { page } = await board();
    await live(page);
    const id = mock.incidents.items.find((i) => i.kind === 'MemoryPressure').id;
    await page.focus(`[data-incident="${id}"]`);
    await page.keyboard.press('c');
    await page.waitForSelector('dialog[open]');
    for (const key of ['ArrowDown', 'Tab', ...'cache', 'Enter']) await page.keyboard.press(key);
    await page.waitForSelector(`[data-incident="${id}"]`, { state: 'detached' });
    assert.equal(mock.incidents.find(id).resolution, 'workload');
    assert.equal(mock.incidents.find(id).timeline.at(-1).note, 'cache');
    await page.waitForSelector(`.ended a[href="/incidents/${id}"]`);
    nothingWrong();
  });

  test('what the server refuses is said in its own words, in the dialog', async () => {
    const { page } = await board();
    await live(page);
    const incident = mock.incidents.items.find((i) => i.kind === 'NodeLost');
    await page.focus(`[data-incident="${incident.id}"]`);
    await page.keyboard.press('a');
    incident.state = 'closed';
    await page.keyboard.press('Enter');
    assert.match(await page.textContent('dialog [role=alert]'), /closed already; open a new one with a cord/);
  });

  test('consequences are folded under their cause', async () => {
    const { page } = await board();
    await live(page);
    const cause = page.locator('article', { hasText: 'NodeLost' });
    assert.equal(await page.locator('.rail article').count(), 4);
    await cause.getByRole('button', { name: '3 consequences' }).click();
    assert.equal(await cause.locator('.consequences a').count(), 3);
    nothingWrong();
  });

  const LINKS = [
    ['/incidents/01JD000001', 'ThermalThrottling'], ['/nodes/n03', 'n03'], ['/nodes/n03/gpus/5', 'n03 GPU 5'], ['/jobs/notebook%2Fmarta', 'notebook/marta'],
  ];
  for (const [path, title] of LINKS) {
    test(`${path} is a link that can be sent`, async () => {
      const { page } = await board({ path });
      await eventually(() => page.locator('h1').first().textContent().catch(() => ''), (text) => text.includes(title));
      nothingWrong();
    });
  }

  test('an incident tells its story: when, who, and whom it was told to', async () => {
    const { page } = await board({ path: '/incidents/01JD000007' });
    await page.waitForSelector('section[aria-label=Timeline] q');
    const text = await page.textContent('main');
    for (const part of ['acknowledged by marta', 'reset is planned', 'oncall delivered', 'channel_not_found', 'reset the GPU at the next idle']) assert.ok(text.includes(part), part);
  });

  test('a link to nothing says so', async () => {
    const { page } = await board({ path: '/nodes/n99' });
    await page.getByText('There is no node n99').waitFor();
    await page.goto(`${mock.url}/incidents/none`);
    await page.getByText('There is no incident none; it may be older than the retention.').waitFor();
    await page.goto(`${mock.url}/what/is/this`);
    await page.getByText('There is no such page').waitFor();
  });

  test('a lost connection is seen, and what happened meanwhile is there when it comes back', async () => {
    const { page } = await board();
    await live(page);
    // It can't come back by itself before the button is pressed.
    await stopClock(page);
    mock.refuse(true);
    await eventually(() => mock.clients.size, (n) => n === 0);
    await eventually(async () => {
      await page.clock.runFor(1_300);
      return page.getAttribute('[role=status]', 'data-state');
    }, (state) => state === 'lost');
    assert.match(await page.textContent('[role=status]'), /Not live since \d\d:\d\d:\d\d.*last data \d+.s ago/);
    assert.ok(Number(await page.$eval('main', (main) => getComputedStyle(main).opacity)) < 0.7);
    assert.match(await page.title(), /^not live/);
    await page.getByText(/next try in \d+ s/).waitFor();
    mock.force(mock.fleet.gpu('n04', 1), 'yellow');
    mock.refuse(false);
    await page.getByRole('button', { name: 'Try now' }).click();
    await live(page);
    await page.waitForSelector('[data-cell="n04/1"] .lamp[data-light=yellow]');
  });

  test('it comes back by itself too', async () => {
    const { page } = await board();
    await live(page);
    mock.refuse(true);
    await page.waitForSelector('[role=status][data-state=lost]');
    mock.refuse(false);
    await live(page);
  });

  test('a client that fell behind fetches everything again', async () => {
    const { page } = await board();
    await live(page);
    // No poll comes.
    await stopClock(page);
    mock.force(mock.fleet.gpu('n04', 2), 'red', { quietly: true });
    mock.tell('lagged', { skipped: 3 });
    await page.waitForSelector('[data-cell="n04/2"] .lamp[data-light=red]');
  });

  test('a tab that nobody looks at gives its connections back, and catches up when it is looked at again', async () => {
    const { page } = await board({ path: '/nodes/n01' });
    await live(page);
    await eventually(() => mock.clients.size, (n) => n === 2);
    await page.clock.install();
    const look = (visible) => page.evaluate((state) => {
      Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, visible ? 'visible' : 'hidden');
    await look(false);
    await eventually(() => mock.clients.size, (n) => n === 1);
    await page.clock.fastForward(121_000);
    await eventually(() => mock.clients.size, (n) => n === 0);
    mock.force(mock.fleet.gpu('n02', 2), 'red');
    await look(true);
    await live(page);
    await eventually(() => lamps(page), (shown) => shown['n02/2'] === 'red');
    nothingWrong();
  });

  test('dark and light follow the system; a choice by hand stays', async () => {
    const { page } = await board({ browserOptions: { colorScheme: 'light' } });
    await live(page);
    const brightness = () => page.evaluate(() => Number(/\d+/.exec(getComputedStyle(document.body).backgroundColor)[0]));
    assert.ok((await brightness()) > 200);
    await page.emulateMedia({ colorScheme: 'dark' });
    assert.ok((await brightness()) < 40);
    await page.keyboard.press('t');
    assert.ok((await brightness()) > 200);
    await page.reload();
    assert.ok((await brightness()) > 200);
    nothingWrong();
  });

  test('a token is asked for, kept, and sent with everything', async () => {
    const { page } = await board({ token: 'secret' });
    await page.waitForSelector('dialog input[type=password]');
    await page.keyboard.type('secret');
    await page.keyboard.press('Enter');
    await live(page);
    await page.reload();
    await live(page);
    assert.equal(await page.locator('dialog').count(), 0);
  });

  test('the filter finds nodes by job, and the numbers by light filter too', async () => {
    const { page } = await board();
    await live(page);
    await page.keyboard.press('/');
    await page.keyboard.type('rl-reward');
    assert.deepEqual(await page.$$eval('[role=row] .name', (names) => names.map((n) => n.dataset.cell)), ['n05']);
    await page.keyboard.press('Escape');
    await page.click('[data-count=grey]');
    assert.deepEqual(await page.$$eval('[role=row] .name', (names) => names.map((n) => n.dataset.cell)), ['n07']);
    nothingWrong();
  });

  test('live samples carry the charts on', async () => {
    const { page } = await board({ path: '/nodes/n01/gpus/0', tickMs: 200 });
    await page.waitForSelector('figure canvas');
    mock.tell('sample', { node: 'n01', at: new Date(Date.now() + 1000).toISOString(), gpus: [{ device: 0, uuid: mock.fleet.gpu('n01', 0).uuid, metrics: { temperature_celsius: 77 } }] });
    await eventually(() => page.textContent('figure[aria-label="Temperature over time"] figcaption'), (text) => text.includes('77'));
    nothingWrong();
  });

  test('a fleet of 4,096 GPUs is all there, and arrows still lead from lamp to lamp', async () => {
    const { page } = await board({ nodes: 512 });
    await live(page);
    assert.equal(await page.locator('[data-cell]').count(), 512 * 9);
    await page.keyboard.press('g');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowDown');
    assert.equal(await page.evaluate(() => document.activeElement.dataset.cell), 'n002/0');
    nothingWrong();
  });
});
