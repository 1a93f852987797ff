'use strict';
document.documentElement.classList.add('scripted');

const collator = new Intl.Collator(undefined, { numeric: true });

// Tables: a click on a heading sorts, undefined values last; the field above filters by name.
for (const table of document.querySelectorAll('table.sortable')) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;

  headings.forEach((heading, column) => heading.firstChild.addEventListener('click', () => {
    const descending = heading.getAttribute('aria-sort') === 'ascending';
    headings.forEach((other) => other.removeAttribute('aria-sort'));
    heading.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
    const sign = descending ? -1 : 1;
    rows.sort((one, other) => {
      const [a, b] = [key(one, column), key(other, column)];
      if (a === '' || b === '') return (a === '') - (b === '');
      return sign * (a !== b && !isNaN(a) && !isNaN(b) ? a - b : collator.compare(a, b));
    });
    body.append(...rows);
  }));

  const tools = table.closest('section').querySelector('.filter');
  const [field, output] = [tools.querySelector('input'), tools.querySelector('output')];
  field.addEventListener('input', () => {
    const wanted = field.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.cells[1].textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    output.textContent = wanted ? `${shown} of ${rows.length} classes` : `${rows.length} classes`;
  });
}

// Maps of confusion matrices: zoom, and the numbers of the cell under the pointer or the keyboard's cursor.
for (const map of document.querySelectorAll('.map')) {
  const data = JSON.parse(map.querySelector('script').textContent);
  const [area, plane, cursor, output] = ['.scroll', '.plane', '.cursor', 'output'].map((name) => map.querySelector(name));
  const size = data.names.length;
  const largest = Math.max(2 ** Math.ceil(Math.log2(size / 20)), 2);
  let zoom = 1;
  let place = [0, 0];

  const step = () => (zoom === 1 ? data.block : 1);
  const range = (first) => {
    const last = Math.min(first + step(), size) - 1;
    return first === last ? data.names[first] : `${data.names[first]} … ${data.names[last]}`;
  };

  function show(row, column) {
    const width = step();
    place = [row - (row % width), column - (column % width)];
    const inside = (value, first) => value >= first && value < first + width;
    let [count, total, best] = [0, 0, -1];
    data.rows.forEach((label, i) => {
      if (inside(label, place[0]) && inside(data.columns[i], place[1])) {
        count += data.counts[i];
        if (best < 0 || data.counts[i] > data.counts[best]) best = i;
      }
    });
    for (let i = place[0]; i < Math.min(place[0] + width, size); i++) total += data.totals[i];
    const share = total ? ` (${(100 * count / total).toFixed(1)} %)` : '';
    const most = width > 1 && best >= 0
      ? `; most: ${data.names[data.rows[best]]} → ${data.names[data.columns[best]]}, ${data.counts[best]}` : '';
    output.textContent = `${range(place[0])} → ${range(place[1])}: ${count} of ${total}${share}${most}`;
    cursor.hidden = false;
    Object.assign(cursor.style, {
      top: `${100 * place[0] / size}%`, left: `${100 * place[1] / size}%`,
      width: `${100 * width / size}%`, height: `${100 * width / size}%`,
    });
  }

  function magnify(factor, x = 0.5, y = 0.5) {
    const next = Math.min(Math.max(zoom * factor, 1), largest);
    const [left, top] = [area.scrollLeft + x * area.clientWidth, area.scrollTop + y * area.clientHeight];
    const ratio = next / zoom;
    zoom = next;
    plane.style.setProperty('--zoom', zoom);
    plane.classList.toggle('near', zoom > 1);
    area.scrollTo(left * ratio - x * area.clientWidth, top * ratio - y * area.clientHeight);
    map.querySelector('[data-zoom="0.5"]').disabled = zoom === 1;
    map.querySelector('[data-zoom="2"]').disabled = zoom === largest;
  }

  const at = (event) => {
    const box = plane.getBoundingClientRect();
    const cell = (offset, length) => Math.min(Math.max(Math.floor(offset / length * size), 0), size - 1);
    return [cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width)];
  };
  plane.addEventListener('pointermove', (event) => show(...at(event)));
  plane.addEventListener('click', (event) => show(...at(event)));
  plane.addEventListener('dblclick', (event) => {
    const box = area.getBoundingClientRect();
    magnify(2, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  for (const button of map.querySelectorAll('button')) {
    button.addEventListener('click', () => magnify(Number(button.dataset.zoom)));
  }
  area.addEventListener('keydown', (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (move) {
      const moved = place.map((value, axis) => Math.min(Math.max(value + move[axis] * step(), 0), size - 1));
      show(...(cursor.hidden ? place : moved));
      cursor.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    } else if (event.key === '+' || event.key === '-') {
      magnify(event.key === '+' ? 2 : 0.5);
    } else {
      return;
    }
    event.preventDefault();
  });
  magnify(1);
}
