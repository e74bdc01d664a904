// fal's proxy in express, with a target of our own allowed: node fal.mjs UPSTREAM
import express from "express";
import * as fal from "@fal-ai/server-proxy/express";

const app = express();
app.use(express.json());
const upstream = new URL(process.argv[2]);
app.all(fal.route, fal.createHandler({ allowedUrlPatterns: [`${upstream.host}/**`], allowUnauthorizedRequests: true }));
const server = app.listen(0, "127.0.0.1", () =>
  console.log(JSON.stringify({ origin: `http://127.0.0.1:${server.address().port}`, route: fal.route })),
);
