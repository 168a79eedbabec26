// Which page the address names. The server answers every path without a dot with the board, so each of them is a deep link.

export type Route =
  | { view: 'board' }
  | { view: 'incident'; id: string }
  | { view: 'node'; node: string }
  | { view: 'gpu'; node: string; device: number }
  | { view: 'job'; job: string }
  | { view: 'missing'; path: string };

export function parseRoute(path: string): Route {
  let parts: string[];
  try {
    parts = path.split('/').filter(Boolean).map(decodeURIComponent);
  } catch {
    return { view: 'missing', path };
  }
  const [what, name, more, device] = parts;
  if (what === undefined) return { view: 'board' };
  if (name !== undefined && parts.length === 2) {
    if (what === 'incidents') return { view: 'incident', id: name };
    if (what === 'nodes') return { view: 'node', node: name };
    if (what === 'jobs') return { view: 'job', job: name };
  }
  if (what === 'nodes' && name !== undefined && more === 'gpus' && parts.length === 4 && /^\d+$/.test(device ?? '')) return { view: 'gpu', node: name, device: Number(device) };
  return { view: 'missing', path };
}

class Router {
  current = $state.raw<Route>(parseRoute(location.pathname));

  start(): void {
    addEventListener('popstate', () => (this.current = parseRoute(location.pathname)));
    document.addEventListener('click', (event) => this.follow(event));
  }

  go(path: string): void {
    if (path === location.pathname) return;
    history.pushState(null, '', path);
    this.current = parseRoute(path);
  }

  /** Links of our own open here; with a modifier, or elsewhere, they are the browser's. */
  private follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest('a');
    if (!link || link.target || link.origin !== location.origin || link.hasAttribute('download')) return;
    event.preventDefault();
    this.go(link.pathname);
  }
}

export const router = new Router();
