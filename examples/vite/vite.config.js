import { defineConfig } from "vite";

export default defineConfig({
  // While you develop, the token route is the Express example's.
  server: { proxy: { "/api": "http://127.0.0.1:3000" } },
});
