// A user agent without a screen: follows redirects and keeps cookies.

/** What a browser does with redirects and cookies, for one site; `origin` is the site's. */
export class UserAgent {
  #cookies = new Map();
  constructor(origin) {
    this.origin = origin;
  }
  async fetch(url, init = {}) {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const headers = { ...init.headers, ...(cookie && { cookie }) };
    const res = await fetch(url, { ...init, headers, redirect: 'manual' });
    for (const line of res.headers.getSetCookie()) {
      const [pair] = line.split(';');
      const at = pair.indexOf('=');
      this.#cookies.set(pair.slice(0, at), pair.slice(at + 1));
    }
    return res;
  }
  /** Follows redirects until a page, or until they leave the site. */
  async follow(url, init) {
    let res = await this.fetch(url, init);
    let here = new URL(url);
    for (let hops = 0; hops < 20; hops += 1) {
      const location = res.headers.get('location');
      if (!location) return { status: res.status, url: here.href, text: await res.text() };
      here = new URL(location, here);
      if (here.origin !== this.origin) return { location: here.href };
      res = await this.fetch(here);
    }
    throw new Error('too many redirects');
  }
  /** Submits a form by POST. */
  submit(url, fields) {
    return this.follow(url, { method: 'POST', body: new URLSearchParams(fields) });
  }
}

/** The value of a hidden form field. */
export const hiddenField = (html, name) => new RegExp(`name="${name}" value="([^"]*)"`).exec(html)?.[1];
