/**
 * The segments in which a disk's blocks lie. A number names each for ever. An index, small enough to be stored with
 * every block, is reused once its segment is removed.
 */

/** Every index is below it: a word of the map has no room for more. */
const INDEXES_MAX = 2 ** 20 - 1;
/** Every number is below it: more segments than all the storage in the world could hold. */
const NUMBERS_MAX = 2 ** 32;
/** The approximate size of an entry of a Map. */
const MAP_ENTRY_BYTES = 48;
const FIRST_CAPACITY = 64;
/** The number of a free index. */
const FREE = -1;

export class SegmentTable {
  /** By index: the segment's number, or {@link FREE}, and how many blocks of the disk lie in it. */
  #numbers = new Float64Array(FIRST_CAPACITY).fill(FREE);
  #live = new Uint16Array(FIRST_CAPACITY);
  readonly #indexes = new Map<number, number>();
  readonly #free: number[] = [];
  /** Every index in use is below it. */
  #end = 0;
  #liveBlocks = 0;

  get liveBlocks(): number {
    return this.#liveBlocks;
  }

  get end(): number {
    return this.#end;
  }

  get memoryBytes(): number {
    return this.#numbers.byteLength + this.#live.byteLength + this.#indexes.size * MAP_ENTRY_BYTES;
  }

  add(number: number): number {
    if (number >= NUMBERS_MAX) throw new RangeError(`${number} is too high for the number of a segment`);
    if (this.#indexes.has(number)) throw new Error(`segment ${number} has an index already`);
    const index = this.#free.pop() ?? this.#end;
    if (index >= INDEXES_MAX) throw new RangeError(`a disk has ${INDEXES_MAX} segments at most`);
    if (index >= this.#numbers.length) this.#grow();
    this.#end = Math.max(this.#end, index + 1);
    this.#indexes.set(number, index);
    this.#numbers[index] = number;
    this.#live[index] = 0;
    return index;
  }

  remove(index: number): void {
    const number = this.numberOf(index);
    if (number === undefined) throw new Error(`no segment has the index ${index}`);
    if (this.liveIn(index) > 0) throw new Error(`segment ${number} has ${this.liveIn(index)} live blocks`);
    this.#indexes.delete(number);
    this.#numbers[index] = FREE;
    this.#free.push(index);
  }

  numberOf(index: number): number | undefined {
    const number = this.#numbers[index] ?? FREE;
    return number === FREE ? undefined : number;
  }

  indexOf(number: number): number | undefined {
    return this.#indexes.get(number);
  }

  liveIn(index: number): number {
    return this.#live[index] ?? 0;
  }

  indexes(): IterableIterator<number> {
    return this.#indexes.values();
  }

  /** Adds `change` to the number of blocks in the segment. */
  account(index: number, change: number): void {
    this.#live[index] = this.liveIn(index) + change;
    this.#liveBlocks += change;
  }

  #grow(): void {
    const numbers = new Float64Array(this.#numbers.length * 2).fill(FREE);
    const live = new Uint16Array(numbers.length);
    numbers.set(this.#numbers);
    live.set(this.#live);
    this.#numbers = numbers;
    this.#live = live;
  }
}
