// `npm run mock -- --nodes 8 --gpus 8 --port 8470 [--token T] [--calm]`: the mock by itself, for development.
import { parseArgs } from 'node:util';
import { startMock } from './server.mjs';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '8470' }, nodes: { type: 'string', default: '8' }, gpus: { type: 'string', default: '8' },
    token: { type: 'string' }, calm: { type: 'boolean', default: false },
  },
});
const mock = await startMock({
  port: Number(values.port), nodes: Number(values.nodes), gpus: Number(values.gpus), token: values.token ?? null, story: !values.calm,
});
console.log(`ready http=${new URL(mock.url).host}`);
