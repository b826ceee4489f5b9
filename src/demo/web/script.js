// The page of `hawkgate demo`: calls the API through hawkgate, and shows each call's journey. It
// reads answers only; no token, cookie or credential is within its reach.

const CALL = '/api/demo/v1/call';
const WITHDRAW = '/api/demo/v1/withdraw';
const SESSION = '/oauth2/session';
const HOPS = ['browser', 'cookie', 'token', 'credentials', 'hawk', 'api'];
const REMEMBERED = 'hawkgate-demo-users';

const byId = (id) => document.getElementById(id);
const hopOf = (name) => byId(`hop-${name}`);
const buttons = [byId('call'), byId('heal'), byId('omit')];
const counts = { calls: 0, received: 0, refused: 0, seen: 0 };
const generations = new Set();
let session = null;

// Showing

function setFact(name, text) {
  document.querySelector(`[data-fact="${name}"]`).textContent = text;
}

function time(value) {
  if (!value) return 'not said';
  const at = new Date(value);
  const today = at.toDateString() === new Date().toDateString();
  const clock = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  return today ? clock : `${at.toLocaleDateString([], { day: 'numeric', month: 'short' })}, ${clock}`;
}

function ordinal(number) {
  const last = number % 100 > 10 && number % 100 < 14 ? 0 : number % 10;
  return number + (['th', 'st', 'nd', 'rd'][last] ?? 'th');
}

function show(text, { failed = false, link = null } = {}) {
  const status = byId('status');
  status.classList.toggle('failed', failed);
  status.replaceChildren(text);
  if (link) {
    const anchor = document.createElement('a');
    [anchor.href, anchor.textContent] = link;
    status.append(' ', anchor);
  }
}

/** Marks the hops before `stop` as passed and `stop` itself as the one that refused. */
function showHops(stop = null) {
  let reached = true;
  for (const name of HOPS) {
    const hop = hopOf(name);
    const stopped = name === stop;
    const passed = reached && !stopped;
    hop.classList.toggle('passed', passed);
    hop.classList.toggle('stopped', stopped);
    hop.querySelector('.facts').hidden = !passed;
    reached = passed;
  }
  hopOf('cookie').querySelector('[data-refusal]').hidden = stop !== 'cookie';
  if (stop) hopOf('api').querySelector('.attempts').hidden = true;
}

function showCounts() {
  for (const [name, value] of Object.entries({ ...counts, generations: generations.size })) {
    document.querySelector(`[data-count="${name}"]`).textContent = value;
  }
}

function showSession() {
  const name = session.name ?? session.sub;
  byId('user').textContent = name;
  byId('sign-out').querySelector('button').setAttribute('aria-label', `Sign out ${name}`);
  setFact('user', [name, session.email].filter(Boolean).join(', '));
  setFact('idle', time(session.idle_expires));
  setFact('lifetime', time(session.expires));
}

function showRequest(method, target, status, milliseconds) {
  const readable = document.cookie;
  setFact('request', `${method} ${target}`);
  setFact('readable', readable ? readable.split(';').map((c) => c.split('=')[0].trim()).join(', ') : 'none');
  setFact('answered', `${status}, after ${milliseconds} ms`);
}

function showAttempts(attempts) {
  const list = hopOf('api').querySelector('.attempts');
  list.hidden = attempts.length < 2;
  list.replaceChildren(
    ...attempts.map((attempt) => {
      const item = document.createElement('li');
      const refused = attempt.status === 401;
      item.classList.toggle('refused', refused);
      item.textContent = `${time(attempt.at)}, generation ${attempt.credentials}: ${attempt.status}${refused ? `, “${attempt.message}”` : ''}`;
      return item;
    }),
  );
}

function showAnswer(answer) {
  const { token, credentials, request, attempts } = answer;
  setFact('issuer', token.iss);
  setFact('audience', token.aud);
  setFact('scope', token.scope);
  setFact('token-expires', time(token.expires));
  setFact('generation', `${credentials.number}, issued ${time(credentials.issued)}`);
  setFact('origin', credentials.calls === 1 ? 'fetched for this call' : `cache (${ordinal(credentials.calls)} call with them)`);
  setFact('credentials-expire', time(credentials.expires));
  setFact('authorization', request.authorization);
  setFact('cookie', request.cookie ? 'yes (this is a bug)' : 'no');
  setFact('bearer', attempts.some((attempt) => attempt.bearer) ? 'yes (this is a bug)' : 'no');
  setFact('id', request.id);
  setFact('client', answer.clientId);
  setFact('scopes', answer.scopes.join(' '));
  setFact('status', attempts.length > 1 ? '200, not the 401' : '200');
  showAttempts(attempts);
  showHops();
}

// Two users

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(REMEMBERED)) ?? {};
  } catch {
    return {};
  }
}

function remember(answer) {
  const users = remembered();
  users[answer.token.sub] = {
    name: session?.name ?? answer.token.sub,
    clientId: answer.clientId,
    scopes: answer.scopes.join(' '),
    generation: answer.credentials.number,
    at: new Date().toISOString(),
  };
  try {
    sessionStorage.setItem(REMEMBERED, JSON.stringify(users));
  } catch {
    // Without storage there is one user to show.
  }
  showUsers(users);
}

function cell(kind, text, scope) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (scope) element.scope = scope;
  return element;
}

function row(kind, title, values) {
  const element = document.createElement('tr');
  element.append(title ? cell('th', title, 'row') : document.createElement('td'));
  element.append(...values.map((value) => cell(kind, value, kind === 'th' ? 'col' : '')));
  return element;
}

function showUsers(known) {
  const users = Object.values(known);
  const table = document.querySelector('.compare');
  table.hidden = users.length === 0;
  table.tHead.replaceChildren(row('th', '', users.map((user) => user.name)));
  table.tBodies[0].replaceChildren(
    row('td', 'Client ID', users.map((user) => user.clientId)),
    row('td', 'Scopes', users.map((user) => user.scopes)),
    row('td', 'Generation', users.map((user) => user.generation)),
    row('td', 'Last call', users.map((user) => time(user.at))),
  );
}

// Calling

/** The refusal's own address for signing in, if it is one on this site, and back to this page. */
function signInLink(body) {
  const url = typeof body?.login_url === 'string' ? body.login_url : '';
  if (!/^\/(?![/\\])/.test(url)) return null;
  return url.includes('?') ? url : `${url}?return_to=%2F`;
}

async function bodyOf(response) {
  return response.json().catch(() => null);
}

async function readSession() {
  const response = await fetch(SESSION, { headers: { Accept: 'application/json' }, cache: 'no-store' });
  if (!response.ok) return;
  session = await response.json();
  showSession();
}

function showFailure(response, body) {
  const reason = response.headers.get('X-Hawkgate-Error');
  if (reason === 'sign_in_required') {
    showHops('cookie');
    showRefusal(response, body);
    byId('user').textContent = '';
    byId('sign-out').hidden = true;
    const link = signInLink(body);
    show('You are signed out: the session has ended.', { failed: true, link: link && [link, 'Sign in again'] });
    return;
  }
  if (!reason && response.status === 401) counts.seen += 1;
  const from = reason ? `hawkgate refused the call (${reason})` : 'The API refused the call';
  show(`${from}: ${response.status}. ${body?.message ?? ''}`, { failed: true });
}

function showRefusal(response, body) {
  const reason = response.headers.get('X-Hawkgate-Error');
  const text = `${response.status}, X-Hawkgate-Error: ${reason}. ${body?.message?.split('\n')[0].replaceAll('`', '') ?? ''}`;
  hopOf('cookie').querySelector('[data-refusal]').textContent = text;
}

async function timed(options) {
  const start = performance.now();
  const response = await fetch(CALL, { cache: 'no-store', ...options });
  const body = await bodyOf(response);
  const milliseconds = Math.round(performance.now() - start);
  showRequest('GET', CALL, response.status, milliseconds);
  return { response, body, milliseconds };
}

function describe(answer, milliseconds) {
  const { attempts, credentials } = answer;
  if (attempts.length > 1) {
    return 'Healed: the API rejected the first attempt with 401. hawkgate fetched new credentials and resent the call. This page saw only the 200.';
  }
  const from = credentials.calls === 1 ? 'fetched for this call' : 'from hawkgate’s cache';
  return `200 after ${milliseconds} ms, as ${answer.clientId}, with credentials ${from}.`;
}

async function call() {
  const { response, body, milliseconds } = await timed({});
  if (!response.ok || !body?.attempts) {
    showFailure(response, body);
    return;
  }
  counts.calls += 1;
  counts.received += body.attempts.length;
  counts.refused += body.attempts.filter((attempt) => attempt.status === 401).length;
  for (const attempt of body.attempts) generations.add(attempt.credentials);
  await readSession();
  showAnswer(body);
  remember(body);
  show(describe(body, milliseconds), { link: body.attempts.length > 1 ? ['#hop-api', 'See both attempts'] : null });
}

async function heal() {
  const response = await fetch(WITHDRAW, { method: 'POST' });
  if (response.ok) {
    await call();
  } else {
    showFailure(response, await bodyOf(response));
  }
}

async function omit() {
  const { response, body } = await timed({ credentials: 'omit' });
  if (response.status !== 401) {
    show(`The call was answered with ${response.status}, but should have been refused.`, { failed: true });
    return;
  }
  showHops('cookie');
  showRefusal(response, body);
  show('hawkgate answered 401: without the cookie nobody is signed in. The API received nothing.');
}

/** Runs one action at a time. The buttons stay focusable, so that the focus is not lost. */
async function run(action) {
  if (buttons[0].getAttribute('aria-disabled') === 'true') return;
  for (const button of buttons) button.setAttribute('aria-disabled', 'true');
  try {
    await action();
  } catch {
    show('hawkgate does not answer. Is the demo still running?', { failed: true });
  } finally {
    for (const button of buttons) button.removeAttribute('aria-disabled');
    showCounts();
  }
}

byId('call').addEventListener('click', () => run(call));
byId('heal').addEventListener('click', () => run(heal));
byId('omit').addEventListener('click', () => run(omit));
showUsers(remembered());
run(call);
