// The filter box: words that must all be found, and `light:red`. Pure.
import type { Light } from './types';

export interface Filter {
  words: string[];
  lights: Light[];
}

export interface Subject {
  /** Everything about it that a word may be found in. */
  text: string;
  light?: Light;
}

export function parseFilter(input: string): Filter {
  const words: string[] = [];
  const lights: Light[] = [];
  for (const token of input.toLowerCase().split(/\s+/).filter(Boolean)) {
    if (token.startsWith('light:')) lights.push(token.slice(6) as Light);
    else words.push(token);
  }
  return { words, lights };
}

export const isEmpty = (filter: Filter): boolean => filter.words.length === 0 && filter.lights.length === 0;

export function matches(filter: Filter, subject: Subject): boolean {
  const text = subject.text.toLowerCase();
  const inLight = filter.lights.length === 0 || subject.light === undefined || filter.lights.includes(subject.light);
  return inLight && filter.words.every((word) => text.includes(word));
}

/** The input with `light:X` put in, or taken out if it was there. */
export function toggleLight(input: string, light: Light): string {
  const token = `light:${light}`;
  const tokens = input.split(/\s+/).filter(Boolean);
  const without = tokens.filter((t) => t !== token);
  return (without.length < tokens.length ? without : [...tokens, token]).join(' ');
}

/** `n2` before `n10`. */
export const naturally = new Intl.Collator('en', { numeric: true }).compare;
