// The board's keys. Each lamp grid and list looks after its own arrows; here are the ones that work everywhere.
import { flushSync } from 'svelte';
import { incidents } from './board.svelte';
import { canClose, fold, isAcknowledged, isOpen } from './incidents';
import { router } from './route.svelte';
import type { Incident } from './types';
import { ui } from './ui.svelte';

/** The incident that a key means: the focused one, the one on the page, else the most urgent that nobody has taken. */
function meant(): Incident | undefined {
  const focused = document.activeElement?.closest<HTMLElement>('[data-incident]')?.dataset.incident;
  const { current } = router;
  const named = focused ?? (current.view === 'incident' ? current.id : undefined);
  if (named !== undefined) return incidents.find(named);
  const stories = fold(incidents.open).map((s) => s.incident);
  return stories.find((i) => !isAcknowledged(i)) ?? stories[0];
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches('input, textarea, select');
}

function ask(kind: 'acknowledge' | 'close'): void {
  const incident = meant();
  if (!incident) return ui.say('There is no open incident.', true);
  if (kind === 'close' && !canClose(incident)) return ui.say(`${incident.kind} is closed already.`);
  if (kind === 'acknowledge' && !isOpen(incident)) return ui.say(`${incident.kind} is over.`);
  if (kind === 'acknowledge' && isAcknowledged(incident)) return ui.say(`${incident.kind} is acknowledged already.`);
  ui.dialog = { kind, incident };
}

/** Where the focus was on the board before a page was opened from it. */
let cameFrom: HTMLElement | null = null;

export function rememberFocus(element: HTMLElement): void {
  cameFrom = element;
}

/** Shows the board, and gives the focus to what `find` finds on it. */
function toBoard(find: () => HTMLElement | null): void {
  // At once, so that a key that follows meets the focus where it belongs.
  flushSync(() => router.go('/'));
  find()?.focus();
}

function back(): void {
  if (router.current.view !== 'board') toBoard(() => cameFrom);
}

const KEYS: Record<string, () => void> = {
  '/': () => document.getElementById('filter')?.focus(),
  '?': () => (ui.dialog = { kind: 'help' }),
  a: () => ask('acknowledge'),
  c: () => ask('close'),
  t: () => ui.toggleTheme(),
  i: () => document.querySelector<HTMLElement>('.rail [data-incident]')?.focus(),
  g: () => toBoard(() => document.querySelector('[role="grid"] [tabindex="0"]')),
  Escape: back,
};

export function onKey(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || ui.dialog !== null || typing(event.target)) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}
