// What the person at the board has chosen or opened: the filter, the theme, the dialog, the last word from an action.
import { post } from './api';
import { incidents } from './board.svelte';
import type { CloseReason, Incident, IncidentDetail } from './types';

const THEME_KEY = 'entrenar.theme';
const CELL_KEY = 'entrenar.cell';
const TOAST_MS = 5_000;

export type Dialog = { kind: 'acknowledge' | 'close'; incident: Incident } | { kind: 'help' } | { kind: 'token'; detail: string };

/** What a lamp of a small fleet shows beside its shape. */
export const CELL_CHOICES = ['utilization', 'temperature', 'memory', 'power'] as const;
export type CellChoice = (typeof CELL_CHOICES)[number];

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
}

const systemDark = matchMedia('(prefers-color-scheme: dark)');

/** What the page shows: the choice by hand, else what the system wants. A change of the system is seen before we are told of it. */
function shownTheme(): 'dark' | 'light' {
  const chosen = document.documentElement.dataset.theme;
  return chosen === 'dark' || chosen === 'light' ? chosen : systemDark.matches ? 'dark' : 'light';
}

class Ui {
  filter = $state('');
  dialog = $state.raw<Dialog | null>(null);
  toast = $state.raw<{ text: string; bad: boolean } | null>(null);
  theme = $state<'dark' | 'light'>(shownTheme());
  cell = $state<CellChoice>(this.initialCell());
  private toastTimer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    systemDark.addEventListener('change', () => (this.theme = shownTheme()));
  }

  private initialCell(): CellChoice {
    return CELL_CHOICES.find((c) => c === stored(CELL_KEY)) ?? 'utilization';
  }

  toggleTheme(): void {
    this.theme = shownTheme() === 'dark' ? 'light' : 'dark';
    document.documentElement.dataset.theme = this.theme;
    store(THEME_KEY, this.theme);
  }

  chooseCell(cell: CellChoice): void {
    this.cell = cell;
    store(CELL_KEY, cell);
  }

  say(text: string, bad = false): void {
    clearTimeout(this.toastTimer);
    this.toast = { text, bad };
    this.toastTimer = setTimeout(() => (this.toast = null), TOAST_MS);
  }
}

export const ui = new Ui();

async function act(incident: Incident, verb: string, body: object, said: string): Promise<void> {
  const answer = await post<IncidentDetail>(`incidents/${encodeURIComponent(incident.id)}/${verb}`, body);
  incidents.upsert(answer);
  ui.say(`${said} ${incident.kind}.`);
}

const withNote = (note: string) => (note.trim() ? { note: note.trim() } : {});

export const acknowledge = (incident: Incident, note: string) => act(incident, 'acknowledge', withNote(note), 'Acknowledged');
export const close = (incident: Incident, reason: CloseReason, note: string) => act(incident, 'close', { reason, ...withNote(note) }, 'Closed');
