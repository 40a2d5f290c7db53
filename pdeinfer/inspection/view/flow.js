// Particles that a velocity carries over the picture: their trails are its streaks.

const PARTICLES = 260;
const TRAIL = 14; // points
const FASTEST = 0.16; // points of the map that the fastest particle moves in one frame
const LIFE = 160; // frames, after which a particle starts elsewhere

export class Flow {
  constructor(u, v, [rows, columns]) {
    Object.assign(this, { u, v, rows, columns });
    this.fastest = u.reduce((fastest, value, point) => Math.max(fastest, Math.hypot(value, v[point])), 0);
    this.particles = Array.from({ length: PARTICLES }, () => this.#born(Math.random() * LIFE));
  }

  #born(age = 0) {
    return { age, trail: [[Math.random() * this.columns, Math.random() * this.rows]] };
  }

  /** Move every particle by one frame. One that leaves starts elsewhere: the trail must not cross the picture. */
  advance() {
    if (!(this.fastest > 0)) return;
    for (const [index, particle] of this.particles.entries()) {
      const [x, y] = particle.trail.at(-1);
      const isOutside = x >= this.columns || y >= this.rows || x < 0 || y < 0;
      if (isOutside || ++particle.age > LIFE) {
        this.particles[index] = this.#born();
        continue;
      }
      const point = Math.floor(y) * this.columns + Math.floor(x);
      particle.trail.push([x + (this.u[point] / this.fastest) * FASTEST, y + (this.v[point] / this.fastest) * FASTEST]);
      if (particle.trail.length > TRAIL) particle.trail.shift();
    }
  }

  draw(context, width, height) {
    const [scaleX, scaleY] = [width / this.columns, height / this.rows];
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.lineCap = context.lineJoin = "round";
    // A dark outline keeps the streaks visible on every colour.
    for (const [colour, thickness] of [["rgb(0 0 0 / 50%)", 4], ["#fff", 1.8]]) {
      context.strokeStyle = colour;
      context.lineWidth = thickness;
      context.beginPath();
      for (const { trail } of this.particles) {
        if (trail.length < 3) continue;
        const [[x, y], ...rest] = trail;
        context.moveTo(x * scaleX, y * scaleY);
        for (const [nextX, nextY] of rest) context.lineTo(nextX * scaleX, nextY * scaleY);
      }
      context.stroke();
    }
    context.restore();
  }
}
