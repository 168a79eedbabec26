// The live line: one event stream held open by `fetch`, taken up again with back-off when it breaks or falls silent.
import { ApiError, messageOf, request } from './api';
import { SseParser } from './sse';
import type { StreamEvents } from './types';

/** The server says something every 10 s; after this long without a byte the line is taken for dead. */
const SILENCE_MS = 25_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

export interface StreamHandlers {
  event<K extends keyof StreamEvents>(name: K, data: StreamEvents[K]): void;
  /** Any byte came: the line lives. */
  alive?(): void;
  /** The line broke; the next attempt is at `retryAt` (milliseconds since the epoch). */
  lost?(why: string, attempt: number, retryAt: number): void;
}

/** Waits before attempt `n` (from 1): doubling, with jitter so that many boards do not come back in step. */
export function backoffMs(attempt: number, random = Math.random()): number {
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1)) * (0.75 + random / 2);
}

export class Stream {
  private stopped = false;
  private attempt = 0;
  private abort: AbortController | null = null;
  private wake: (() => void) | null = null;

  constructor(
    private readonly query: string,
    private readonly on: StreamHandlers,
  ) {
    void this.run();
  }

  /** Tries again at once instead of waiting. */
  retryNow(): void {
    this.wake?.();
  }

  stop(): void {
    this.stopped = true;
    this.abort?.abort();
    this.wake?.();
  }

  private async run(): Promise<void> {
    while (!this.stopped) {
      const why = await this.listen();
      if (this.stopped) return;
      this.attempt += 1;
      const wait = backoffMs(this.attempt);
      this.on.lost?.(why, this.attempt, Date.now() + wait);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, wait);
        this.wake = () => (clearTimeout(timer), resolve());
      });
      this.wake = null;
    }
  }

  /** Listens until the line breaks; returns why. */
  private async listen(): Promise<string> {
    const abort = new AbortController();
    this.abort = abort;
    let watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const response = await request(`stream?${this.query}`, { signal: abort.signal }, 'text/event-stream');
      if (!response.body) return 'the answer has no body';
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new SseParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return 'the server closed the stream';
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
        this.attempt = 0;
        this.on.alive?.();
        for (const event of parser.push(value)) this.dispatch(event.name, event.data);
      }
    } catch (error) {
      if (abort.signal.aborted) return `no word for ${SILENCE_MS / 1000} s`;
      return error instanceof ApiError ? error.message : `the stream broke (${messageOf(error)})`;
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
  }

  private dispatch(name: string, data: string): void {
    // Names that this build does not know are a newer server's: skipped.
    if (!['hello', 'light', 'incident', 'sample', 'lagged'].includes(name)) return;
    this.on.event(name as keyof StreamEvents, JSON.parse(data));
  }
}
