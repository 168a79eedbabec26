import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `BOARD_URL` is the server whose API the development server shows; `npm run mock` listens on the default.
const api = process.env.BOARD_URL ?? 'http://127.0.0.1:8470';

export default defineConfig({
  plugins: [svelte()],
  server: { proxy: { '/api': api } },
  build: {
    target: 'es2022',
    // As written: `light-dark()` is in every browser since 2024.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    // The polyfill would be an inline script, which the server's content security policy forbids.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
});
