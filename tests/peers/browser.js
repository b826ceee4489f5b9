// Chromium, driven with playwright-core. All instances share one process; each is a profile of its own,
// without cookies. Names that end in `.test` resolve to loopback, and any certificate is accepted.
//
// The program is Debian's; the environment variable CHROMIUM names another.
//
// Control: open, goto, waitFor, evaluate, fill, click, press, state, requests, cookies, setCookies, clearCookies,
// screenshot, media, close.

import process from 'node:process';
import { chromium } from 'playwright-core';

const TIMEOUT = 30_000;
const MAX_TEXT = 2_000;
const args = [
  '--host-resolver-rules=MAP *.test 127.0.0.1',
  '--disable-gpu',
  '--disable-component-update',
  '--no-first-run',
];

let launched;

/** The one process. */
function launch() {
  launched ??= chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args,
    // Chromium's sandbox does not run as root.
    chromiumSandbox: process.getuid() !== 0,
  });
  return launched;
}

/** Starts one profile. */
export async function start(options, instance) {
  const browser = await launch();
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 } });
  context.setDefaultTimeout(TIMEOUT);
  instance.onStop(() => context.close().catch(() => {}));

  const pages = new Map();
  let lastPage = 0;

  async function open() {
    const page = await context.newPage();
    const entry = { page, requests: [], console: [] };
    page.on('response', (response) => {
      const request = response.request();
      entry.requests.push({
        method: request.method(),
        url: response.url(),
        status: response.status(),
        type: request.resourceType(),
      });
    });
    page.on('console', (message) => entry.console.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => entry.console.push(`error: ${error.message}`));
    lastPage += 1;
    pages.set(lastPage, entry);
    return { page: lastPage };
  }

  /** What the user sees, for a test's message when a step fails. */
  async function state({ page, console: log }) {
    const text = await page.evaluate(() => document.body?.innerText ?? '').catch((error) => String(error));
    return { url: page.url(), title: await page.title().catch(() => ''), text: text.slice(0, MAX_TEXT), console: log };
  }

  const commands = {
    goto: async ({ page }, { url }) => {
      const response = await page.goto(url);
      return { status: response?.status() ?? null, headers: (await response?.allHeaders()) ?? {}, url: page.url() };
    },
    /** Waits until the page's URL matches a regular expression. */
    waitFor: async ({ page }, { url }) => {
      await page.waitForURL(new RegExp(url));
    },
    /** Runs the body of an async function with the parameter `arg`; responds with what it returns. */
    evaluate: async ({ page }, { script, arg }) => {
      const expression = `(async (arg) => {${script}\n})(${JSON.stringify(arg ?? null)})`;
      return { value: (await page.evaluate(expression)) ?? null };
    },
    fill: ({ page }, { selector, value }) => page.fill(selector, value),
    click: ({ page }, { selector }) => page.click(selector),
    press: ({ page }, { key }) => page.keyboard.press(key),
    state,
    requests: ({ requests }) => ({ requests }),
    /** The width and height in CSS pixels, and `light` or `dark`, from now on. */
    media: async ({ page }, { width, height, scheme }) => {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme: scheme });
    },
    /** The whole page, as PNG. */
    screenshot: ({ page }, { path }) => page.screenshot({ path, fullPage: true, animations: 'disabled' }).then(() => {}),
    close: ({ page }) => page.close(),
  };

  const controls = {
    open,
    cookies: async () => ({ cookies: await context.cookies() }),
    clearCookies: ({ name }) => context.clearCookies({ name }),
    setCookies: ({ cookies }) => context.addCookies(cookies),
  };
  for (const [name, command] of Object.entries(commands)) {
    controls[name] = async ({ page: id, ...parameters }) => {
      const entry = pages.get(id);
      try {
        return await command(entry, parameters);
      } catch (error) {
        throw new Error(`${name} ${JSON.stringify(parameters)}: ${error.message}\n${JSON.stringify(await state(entry), null, 2)}`);
      }
    };
  }
  const controlPort = await instance.control(controls);
  return { control: controlPort, version: browser.version() };
}
