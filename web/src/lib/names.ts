// Node names short enough for a lamp's row, and still telling the nodes apart. Pure.

/** Names up to this long are left as they are, but for a domain that all share. */
const LONG = 14;
/** A shared beginning shorter than this is not worth hiding. */
const MIN_PREFIX = 4;

function sharedPrefix(names: string[]): string {
  const [first = '', ...rest] = names;
  let n = first.length;
  for (const name of rest) while (!name.startsWith(first.slice(0, n))) n -= 1;
  return first.slice(0, n);
}

const reversed = (text: string) => [...text].reverse().join('');

/** The domain that all names end in, from a dot on; empty if there is none or only one name. */
function sharedDomain(names: string[]): string {
  const suffix = reversed(sharedPrefix(names.map(reversed)));
  const dot = suffix.indexOf('.');
  return names.length > 1 && dot >= 0 ? suffix.slice(dot) : '';
}

/** Each name without the domain that all share; where that is still long, without the beginning that all share. */
export function shortNames(names: string[]): Map<string, string> {
  const domain = sharedDomain(names);
  const hosts = names.map((name) => name.slice(0, name.length - domain.length));
  const prefix = names.length > 1 && hosts.some((h) => h.length > LONG) ? (/^.*[-_.]/.exec(sharedPrefix(hosts))?.[0] ?? '') : '';
  const cut = prefix.length >= MIN_PREFIX ? prefix.length : 0;
  return new Map(names.map((name, i) => [name, (cut > 0 ? '…' : '') + (hosts[i] ?? name).slice(cut)]));
}
