// A listener made of the official library: `node client.mjs URL CHANNEL`. Tells what happens as lines of JSON, and does
// what the lines of its input ask for: {"do": "publish", "data": …}, "history", "presence_stats", "disconnect".

import { createInterface } from "node:readline";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

const [url, channel] = process.argv.slice(2);
const tell = (event, about = {}) => process.stdout.write(`${JSON.stringify({ event, ...about })}\n`);

const client = new Centrifuge(url, { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 200 });
client.on("connected", () => tell("connected"));
client.on("connecting", ({ code }) => tell("connecting", { code }));
client.on("disconnected", ({ code }) => tell("disconnected", { code }));
client.on("error", ({ error }) => tell("error", { code: error.code }));

const subscription = client.newSubscription(channel);
subscription.on("subscribed", ({ wasRecovering, recovered }) => tell("subscribed", { wasRecovering, recovered }));
subscription.on("publication", ({ data, offset }) => tell("publication", { data, offset }));
subscription.on("unsubscribed", ({ code }) => tell("unsubscribed", { code }));
subscription.on("error", ({ error }) => tell("error", { code: error.code }));

const actions = {
  publish: async ({ data, to }) => (to ? client.publish(to, data) : subscription.publish(data)),
  history: async ({ limit, reverse }) => subscription.history({ limit, reverse }),
  presence_stats: async () => subscription.presenceStats(),
  disconnect: async () => client.disconnect(),
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const asked = JSON.parse(line);
    try {
      tell("done", { did: asked.do, result: (await actions[asked.do](asked)) ?? null });
    } catch (error) {
      tell("failed", { did: asked.do, code: error.code });
    }
  })
  .on("close", () => process.exit(0));

subscription.subscribe();
client.connect();
