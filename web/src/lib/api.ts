// Requests to the aggregator: the token, problem+json as errors, lists followed to their end.
import type { Page } from './types';

const TOKEN_KEY = 'entrenar.token';
/** Pages of one list that are followed: far above any fleet; a server that never ends a list stops here. */
const MAX_PAGES = 200;

/** What the server said was wrong, in words for people. `status` 0: no answer came. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

let onUnauthorized: (detail: string) => void = () => {};

/** Who asks for a token when the server wants one. */
export function whenUnauthorized(ask: (detail: string) => void): void {
  onUnauthorized = ask;
}

export function setToken(token: string): void {
  sessionStorage.setItem(TOKEN_KEY, token);
}

function headers(extra: Record<string, string>): Record<string, string> {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token ? { ...extra, authorization: `Bearer ${token}` } : extra;
}

async function problem(response: Response): Promise<ApiError> {
  const body = (await response.json().catch(() => null)) as { detail?: string; title?: string } | null;
  return new ApiError(response.status, body?.detail ?? body?.title ?? `The server answered ${response.status} ${response.statusText}`.trim());
}

/** A request to the API; throws `ApiError` unless the answer is good. */
export async function request(path: string, init: RequestInit = {}, accept = 'application/json'): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(`/api/v1/${path}`, { ...init, headers: headers({ accept, ...(init.body ? { 'content-type': 'application/json' } : {}) }) });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, 'The server does not answer: is the aggregator running, and the network up?');
  }
  if (response.ok) return response;
  const failure = await problem(response);
  if (failure.status === 401) onUnauthorized(failure.message);
  throw failure;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request(path, { signal })).json() as Promise<T>;
}

export async function post<T>(path: string, body: object): Promise<T> {
  return (await request(path, { method: 'POST', body: JSON.stringify(body) })).json() as Promise<T>;
}

/** Every item of a list, page after page. */
export async function list<T>(path: string, signal?: AbortSignal): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null = null;
  for (let n = 0; n < MAX_PAGES; n += 1) {
    const joint: string = path.includes('?') ? '&' : '?';
    const page: Page<T> = await get<Page<T>>(cursor === null ? path : `${path}${joint}cursor=${encodeURIComponent(cursor)}`, signal);
    items.push(...page.items);
    cursor = page.next;
    if (cursor === null) break;
  }
  return items;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
