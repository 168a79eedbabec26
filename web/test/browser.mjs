// A headless Chromium for the board's stories. Each page notes what it must not do: log an error, leave its origin.
import { chromium } from 'playwright-core';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';

export const launch = () => chromium.launch({ executablePath, headless: true, args: ['--no-sandbox'] });

/** A page at `url + path`, and what went wrong on it. */
export async function open(browser, url, path = '/', options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'dark', ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (message) => message.type() === 'error' && wrong.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => wrong.push(`thrown: ${error.message}`));
  page.on('request', (request) => new URL(request.url()).origin !== url && wrong.push(`another origin: ${request.url()}`));
  await page.goto(url + path);
  return { page, wrong, close: () => context.close() };
}

/** Waits until `probe` gives what is wanted, and says what it gave last if it never does. */
export async function eventually(probe, wanted = (value) => value === true, timeoutMs = 8_000) {
  const end = Date.now() + timeoutMs;
  let last;
  while (Date.now() < end) {
    last = await probe();
    if (wanted(last)) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`still ${JSON.stringify(last)} after ${timeoutMs} ms`);
}

/** Every item of a list of the API. */
export async function list(url, path) {
  const items = [];
  let cursor = null;
  do {
    const answer = await fetch(`${url}/api/v1/${path}${cursor ? `${path.includes('?') ? '&' : '?'}cursor=${encodeURIComponent(cursor)}` : ''}`);
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    const page = await answer.json();
    items.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return items;
}

/** The lights on the board, by cell: `n01` a node, `n01/3` a GPU. */
export const lamps = (page) =>
  page.$$eval('[role=grid] [data-cell]', (cells) => Object.fromEntries(cells.map((c) => [c.dataset.cell, c.querySelector('.lamp').dataset.light])));

/** The same, as the API says it. */
export async function lights(url) {
  const [nodes, gpus] = await Promise.all([list(url, 'nodes'), list(url, 'gpus')]);
  return Object.fromEntries([...nodes.map((n) => [n.name, n.light]), ...gpus.map((g) => [`${g.node}/${g.device}`, g.light])]);
}
