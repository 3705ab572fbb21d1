'use strict';
// The page report.html: thresholds, filters, the large view and the review. All text is set as text, never as markup; nothing is
// fetched. The page shows what the run found without this script.
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const grid = one('#images'), large = one('#large'), help = one('#help'), heat = one('#heat');
  const key = 'musc-review-' + document.documentElement.dataset.id;
  const figure = (value) => value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e4)
    ? value.toExponential(2) : value.toFixed(4);
  const text = (at, words) => { if (at && at.textContent !== words) at.textContent = words; };

  // The classes, each with its histogram; `threshold` is null while each image has its own.
  const groups = all('.histogram').map((at) => {
    const plot = one('.plot', at), numbers = plot.dataset, run = at.dataset.threshold;
    const rest = at.dataset.rest.split(' ').filter(Boolean).map(Number);
    return {
      at, plot, cards: [], handle: one('.threshold', at), input: one('.value', at), reset: one('.reset', at), own: one('.own', at),
      low: +numbers.low, high: +numbers.high, left: +numbers.left, right: +numbers.right,
      run: run === undefined ? null : +run, threshold: run === undefined ? null : +run, start: +at.dataset.at, value: +at.dataset.at,
      // Images that are not on the page: raw score and the run's decision, by turns.
      rest: rest.flatMap((raw, i) => i % 2 ? [] : [{ raw, ng: rest[i + 1] === 1 }]),
    };
  });

  let cards = all('.card').map((at) => {
    const of = at.dataset, path = JSON.parse(of.path);
    const card = {
      at, path, name: path.toLowerCase(), title: path.split(/[\\/]/).pop(), rank: +of.rank, score: +of.score, raw: +of.raw,
      own: +of.threshold, label: of.label, size: of.size, group: groups[+of.class], ng: at.classList.contains('ng'), review: '',
      badge: one('.decision', at), buttons: all('.review button', at),
    };
    card.group.cards.push(card);
    return card;
  });
  const of = new Map(cards.map((card) => [card.at, card]));
  let current = cards[0], filter = 'all', shown = null;

  // What is known of an image: its review before its label; '' for nothing.
  const truth = (card) => card.review === 'NG' || card.review === 'OK' ? card.review
    : card.review || card.label === undefined ? '' : card.label === '1' ? 'NG' : 'OK';
  const word = (card) => card.ng ? 'NG' : 'OK';

  // The review, kept by the browser where it lets a page keep something.
  const load = () => {
    let kept = {};
    try { kept = JSON.parse(localStorage.getItem(key)) || {}; } catch { /* nothing is kept */ }
    for (const card of cards) if (['OK', 'NG', 'unsure'].includes(kept[card.path])) card.review = kept[card.path];
  };
  const keep = () => {
    const kept = Object.fromEntries(cards.filter((card) => card.review).map((card) => [card.path, card.review]));
    try { localStorage.setItem(key, JSON.stringify(kept)); } catch { /* it lasts as long as the page */ }
  };

  const draw = (card) => {
    card.at.classList.toggle('ng', card.ng);
    text(card.badge, word(card));
    for (const button of card.buttons) button.setAttribute('aria-pressed', button.dataset.review === card.review);
    const review = card.review ? `, reviewed as ${card.review}` : '';
    card.at.setAttribute('aria-label', `${card.title}, ${word(card)}${review}`);
  };

  const matches = (card) => {
    const chosen = one('#class')?.value || '', words = one('#find').value.trim().toLowerCase();
    if (chosen !== '' && card.group !== groups[+chosen]) return false;
    if (words && !card.name.includes(words)) return false;
    switch (filter) {
      case 'ng': return card.ng;
      case 'ok': return !card.ng;
      case 'unsure': return card.review === 'unsure';
      case 'open': return !card.review;
      case 'odd': return truth(card) !== '' && truth(card) !== word(card);
      default: return true;
    }
  };

  const update = () => {
    let seen = 0, ng = 0, reviewed = 0, unsure = 0, missed = 0, alarms = 0, known = 0;
    const chosen = one('#class')?.value || '';
    for (const card of cards) {
      const stays = matches(card);
      if (card.at.hidden === stays) card.at.hidden = !stays;
      seen += stays;
      ng += card.ng;
      reviewed += card.review !== '';
      unsure += card.review === 'unsure';
      const is = truth(card);
      known += is !== '';
      missed += is === 'NG' && !card.ng;
      alarms += is === 'OK' && card.ng;
    }
    let images = cards.length;
    groups.forEach((group, number) => {
      group.at.hidden = chosen !== '' && +chosen !== number;
      const above = group.rest.filter((other) => group.threshold === null ? other.ng : other.raw > group.threshold).length;
      const of = group.cards.filter((card) => card.ng).length + above;
      text(one('.above', group.at), `${of} of ${group.cards.length + group.rest.length} NG`);
      ng += above;
      images += group.rest.length;
    });
    for (const curve of all('.curve-of')) curve.hidden = chosen !== '' && curve.dataset.class !== chosen;
    text(one('#ng-count'), String(ng));
    text(one('#ok-count'), String(images - ng));
    text(one('#truth-count'), known ? `${missed} missed, ${alarms} false ${alarms === 1 ? 'alarm' : 'alarms'}` : '');
    text(one('#review-count'), reviewed ? `${reviewed} reviewed` + (unsure ? `, ${unsure} unsure` : '') : '');
    text(one('#seen'), seen === images ? '' : `${seen} of ${images} shown`);
    one('#nothing').hidden = seen > 0;
  };

  // A threshold for all images of a class, or null: the run's own decision of each.
  const decide = (group, threshold) => {
    group.threshold = threshold;
    group.value = threshold ?? group.start;
    for (const card of group.cards) {
      const ng = card.raw > (threshold ?? card.own);
      if (ng !== card.ng) { card.ng = ng; draw(card); }
    }
    const share = Math.min(1, Math.max(0, (group.value - group.low) / (group.high - group.low)));
    const x = group.left + share * (group.right - group.left);
    group.handle.setAttribute('transform', `translate(${x} 0)`);
    group.handle.setAttribute('aria-valuenow', group.value);
    group.handle.setAttribute('aria-valuetext', figure(group.value));
    one('.cut-ok', group.plot).setAttribute('width', x);
    one('.cut-ng', group.plot).setAttribute('x', x);
    group.input.value = figure(group.value);
    group.reset.hidden = threshold === group.run;
    if (group.own) group.own.hidden = threshold !== null;
    update();
    if (large.open) fill();
  };

  const visible = () => cards.filter((card) => !card.at.hidden);
  const choose = (card, focus = true) => {
    if (!card) return;
    for (const other of new Set([current, card])) {
      other.at.tabIndex = other === card ? 0 : -1;
      for (const button of other.buttons) button.tabIndex = other === card ? 0 : -1;
    }
    current = card;
    if (large.open) return fill();
    if (focus) { card.at.focus({ preventScroll: true }); card.at.scrollIntoView({ block: 'nearest' }); }
  };
  // The image so many places on; the first one where none was chosen yet.
  const beside = (steps) => {
    const order = visible(), at = order.indexOf(current);
    if (at < 0) return order[0];
    if (!large.open && !grid.contains(document.activeElement)) return current;
    return order[Math.min(order.length - 1, Math.max(0, at + steps))];
  };
  const columns = () => {
    const order = visible(), top = order[0]?.at.offsetTop;
    return Math.max(1, order.findIndex((card) => card.at.offsetTop !== top));
  };

  const review = (card, value, onwards) => {
    const next = onwards && beside(1);
    card.review = onwards ? value : card.review === value ? '' : value;
    draw(card);
    keep();
    update();
    if (large.open) fill();
    if (next && next !== card) choose(next);
  };

  // The large view shows the chosen image.
  const fit = () => {
    const stack = one('.stack', large), frame = one('#large-frame'), picture = one('img', current.at);
    if (!stack || !picture) return;
    const ratio = picture.getAttribute('width') / picture.getAttribute('height');
    const width = Math.min(frame.clientWidth, frame.clientHeight * ratio);
    stack.style.width = `${width}px`;
    stack.style.height = `${width / ratio}px`;
  };
  const fill = () => {
    if (shown !== current.at) {
      const stack = one('.stack', current.at).cloneNode(true);
      stack.className = 'stack';
      for (const image of all('img', stack)) image.loading = 'eager';
      one('#large-frame').replaceChildren(stack);
      shown = current.at;
    }
    const badge = one('.decision', large);
    text(badge, word(current));
    badge.classList.toggle('ng', current.ng);
    text(one('#large-name'), one('.name', current.at).textContent);
    const known = current.label === undefined ? '' : ` · labelled ${current.label === '1' ? 'defective' : 'normal'}`;
    text(one('#large-facts'), `#${current.rank} · score ${figure(current.score)} · raw ${figure(current.raw)} · threshold `
      + `${figure(current.group.threshold ?? current.own)} · ${current.size} pixels${known}`);
    for (const button of all('.review button', large)) button.setAttribute('aria-pressed', button.dataset.review === current.review);
    fit();
  };
  const enlarge = (card) => {
    choose(card, false);
    shown = null;
    large.showModal();
    fill();
  };
  // The browser gives the focus back to where it was; it belongs to the image that was shown last.
  large.addEventListener('close', () => choose(of.get(shown)));
  addEventListener('resize', () => { if (large.open) fit(); });

  // The opacity is a rule of the style sheet: no image is touched one by one.
  const rule = [...document.styleSheets[0].cssRules].find((rule) => rule.selectorText === '.heat');
  const paint = () => { rule.style.opacity = heat.value / 100; };
  let before = heat.value;
  const stronger = (by) => { heat.value = +heat.value + by; paint(); };

  // The review as a table. An apostrophe keeps a spreadsheet from taking a name for a formula; reading it back takes it off.
  const table = () => {
    const field = (words) => /[",\r\n]/.test(words) || words !== words.trim() ? `"${words.replaceAll('"', '""')}"` : words;
    const safe = (words) => /^[=+\-@'\t\r]/.test(words) ? `'${words}` : words;
    const rows = cards.toSorted((a, b) => a.rank - b.rank).map((card) =>
      [field(safe(card.path)), { OK: '0', NG: '1' }[card.review] ?? '', card.review].join(','));
    return ['path,label,review', ...rows, ''].join('\n');
  };
  const save = () => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([table()], { type: 'text/csv' }));
    link.download = 'review.csv';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  for (const group of groups) {
    const clamp = (value) => Math.min(group.high, Math.max(group.low, value));
    let waiting = null;
    const drag = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(group.plot.getScreenCTM().inverse());
      const value = clamp(group.low + (at.x - group.left) / (group.right - group.left) * (group.high - group.low));
      if (waiting === null) requestAnimationFrame(() => { decide(group, waiting); waiting = null; });
      waiting = value;
    };
    group.plot.addEventListener('pointerdown', (event) => {
      event.preventDefault();
      group.plot.setPointerCapture(event.pointerId);
      group.handle.focus({ preventScroll: true });
      drag(event);
    });
    group.plot.addEventListener('pointermove', (event) => { if (group.plot.hasPointerCapture(event.pointerId)) drag(event); });
    group.handle.addEventListener('keydown', (event) => {
      const step = (group.high - group.low) / 200;
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
      const value = steps ? group.value + steps * step : { Home: group.low, End: group.high }[event.key];
      if (value === undefined) return;
      event.preventDefault();
      decide(group, clamp(value));
    });
    group.input.addEventListener('change', () => {
      const value = group.input.valueAsNumber;
      decide(group, Number.isFinite(value) ? value : group.threshold);
    });
    group.reset.addEventListener('click', () => { decide(group, group.run); group.handle.focus(); });
  }

  grid.addEventListener('click', (event) => {
    const card = of.get(event.target.closest('.card')), button = event.target.closest('[data-review]');
    if (!card) return;
    if (button) { choose(card, false); review(card, button.dataset.review, false); }
    else if (event.target.closest('.frame')) enlarge(card);
    else choose(card);
  });
  grid.addEventListener('focusin', (event) => {
    const card = of.get(event.target.closest('.card'));
    if (card && card !== current) choose(card, false);
  });
  one('.review', large).addEventListener('click', (event) => {
    if (event.target.dataset.review) review(current, event.target.dataset.review, false);
  });
  one('#before').addEventListener('click', () => choose(beside(-1)));
  one('#after').addEventListener('click', () => choose(beside(1)));
  one('#large-close').addEventListener('click', () => large.close());
  one('#help-open').addEventListener('click', () => help.showModal());
  one('#help-close').addEventListener('click', () => help.close());
  one('#save').addEventListener('click', save);
  heat.addEventListener('input', paint);
  one('#find').addEventListener('input', update);
  one('#class')?.addEventListener('change', update);
  one('#sort').addEventListener('change', (event) => {
    const by = event.target.value;
    cards.sort((a, b) => by === 'name' ? (a.name < b.name ? -1 : 1) : by === 'raw' ? b.raw - a.raw : a.rank - b.rank);
    grid.append(...cards.map((card) => card.at));
  });
  for (const button of all('[data-filter]')) {
    button.addEventListener('click', () => {
      filter = button.dataset.filter;
      for (const other of all('[data-filter]')) other.setAttribute('aria-pressed', other === button);
      update();
    });
  }

  const act = {
    j: () => choose(beside(1)), k: () => choose(beside(-1)),
    o: () => review(current, 'OK', true), n: () => review(current, 'NG', true), u: () => review(current, 'unsure', true),
    x: () => review(current, '', false),
    z: () => large.open ? large.close() : enlarge(current),
    h: () => { const now = heat.value; heat.value = +now ? 0 : before; before = +now ? now : before; paint(); },
    '[': () => stronger(-10), ']': () => stronger(10),
    d: () => document.body.classList.toggle('no-outlines'),
    t: () => groups.find((group) => !group.at.hidden)?.handle.focus(),
    '/': () => one('#find').focus(),
    '?': () => help.showModal(),
  };
  const moves = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns, ArrowUp: () => -columns() };
  document.addEventListener('keydown', (event) => {
    const at = event.target, name = event.key;
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (at.matches('input:not([type=range]), select')) { if (name === 'Escape' && !large.open) at.blur(); return; }
    const ofImage = large.open || at.closest('.card');
    if (moves[name] && ofImage) { event.preventDefault(); return choose(beside(moves[name]())); }
    if (name === 'Enter' && at.matches('.card')) { event.preventDefault(); return enlarge(current); }
    // A review needs an image that was chosen, not the first one by accident.
    if ('onux'.includes(name) && !ofImage) return;
    if (large.open && (name === 't' || name === '/')) return;
    if (Object.hasOwn(act, name)) { event.preventDefault(); act[name](); }
  });

  load();
  for (const card of cards) if (card.review) draw(card);
  current.at.tabIndex = 0;
  for (const button of current.buttons) button.tabIndex = 0;
  for (const group of groups) decide(group, group.threshold);
  paint();
})();
