// http-proxy-middleware in express: node http-proxy-middleware.mjs UPSTREAM
import { Agent } from "node:http";
import express from "express";
import { createProxyMiddleware } from "http-proxy-middleware";

const app = express();
app.use(createProxyMiddleware({ target: process.argv[2], agent: new Agent({ keepAlive: true }) }));
const server = app.listen(0, "127.0.0.1", () =>
  console.log(JSON.stringify({ origin: `http://127.0.0.1:${server.address().port}` })),
);
