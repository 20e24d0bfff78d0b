//! The lengths of a code's words in few bytes: finite-state entropy coding of at most 255 small numbers
//! (RFC 8878, 4.1 and 4.2.1.2).

/// Weights are 0 to 11.
const N_WEIGHTS: usize = 12;
/// The format's largest table for weights.
const TABLE_BITS: u32 = 6;
const TABLE: usize = 1 << TABLE_BITS;

/// Bits from the lowest up.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u64,
    n: u32,
}

impl Bits {
    fn put(&mut self, value: u32, n: u32) {
        self.pending |= u64::from(value) << self.n;
        self.n += n;
        while self.n >= 8 {
            self.bytes.push(self.pending as u8);
            (self.pending, self.n) = (self.pending >> 8, self.n - 8);
        }
    }

    fn fill_byte(&mut self) {
        self.put(0, (8 - self.n) % 8);
    }
}

/// Encodes `weights`; none if all are equal, for which the format has no form.
pub(super) fn encode(weights: &[u8]) -> Option<Vec<u8>> {
    let shares = shares(weights)?;
    let mut bits = Bits::default();
    put_shares(&shares, &mut bits);
    bits.fill_byte();
    let (states, first) = table(&shares);
    // Two states take turns, from the end; each begins with its last weight, which takes no bits.
    let mut now: [Option<usize>; 2] = [None; 2];
    for (i, &weight) in weights.iter().enumerate().rev() {
        let (share, first) = (shares[usize::from(weight)] as usize, first[usize::from(weight)]);
        let state = &mut now[i % 2];
        let place = state.map_or(share, |state| {
            // As many bits go as bring the state to one of the weight's.
            let n = (0..=TABLE_BITS).find(|n| state >> n < 2 * share).unwrap_or(TABLE_BITS);
            bits.put((state & ((1 << n) - 1)) as u32, n);
            state >> n
        });
        *state = Some(states[first + place - share]);
    }
    for state in now.into_iter().rev() {
        bits.put((state? - TABLE) as u32, TABLE_BITS);
    }
    bits.put(1, 1);
    bits.fill_byte();
    Some(bits.bytes)
}

/// How many states of the table each weight gets: in proportion, and at least one if it occurs.
fn shares(weights: &[u8]) -> Option<[u32; N_WEIGHTS]> {
    let mut counts = [0u32; N_WEIGHTS];
    for &weight in weights {
        counts[usize::from(weight)] += 1;
    }
    if counts.iter().filter(|&&n| n > 0).count() < 2 {
        return None;
    }
    let all = weights.len() as u32;
    let mut shares = counts.map(|n| if n == 0 { 0 } else { (n * TABLE as u32 / all).max(1) });
    while shares.iter().sum::<u32>() != TABLE as u32 {
        let more = shares.iter().sum::<u32>() < TABLE as u32;
        let largest = shares.iter_mut().max_by_key(|share| **share)?;
        *largest = if more { *largest + 1 } else { *largest - 1 };
    }
    Some(shares)
}

/// Writes the shares, each in as many bits as what is left of the table needs.
fn put_shares(shares: &[u32; N_WEIGHTS], bits: &mut Bits) {
    bits.put(TABLE_BITS - 5, 4);
    let (mut left, mut weight) = (TABLE as u32 + 1, 0);
    while left > 1 {
        let share = shares[weight];
        // Numbers up to `left`: those below `short` take a bit less.
        let n = left.ilog2() + 1;
        let threshold = 1 << (n - 1);
        let short = 2 * threshold - 1 - left;
        let number = share + 1;
        let number_bits = if number < short { n - 1 } else { n };
        bits.put(if number >= threshold { number + short } else { number }, number_bits);
        left -= share;
        weight += 1;
        if share == 0 {
            // Then how many more zeros follow, in threes.
            let mut zeros = shares[weight..].iter().take_while(|&&share| share == 0).count();
            weight += zeros;
            while zeros >= 3 {
                bits.put(3, 2);
                zeros -= 3;
            }
            bits.put(zeros as u32, 2);
        }
    }
}

/// The table's states (counted from the table's size) ordered by weight, and where each weight's begin.
fn table(shares: &[u32; N_WEIGHTS]) -> (Vec<usize>, [usize; N_WEIGHTS]) {
    let mut spread = [0; TABLE];
    let mut at = 0;
    for (weight, &share) in shares.iter().enumerate() {
        for _ in 0..share {
            spread[at] = weight;
            at = (at + (TABLE >> 1) + (TABLE >> 3) + 3) % TABLE;
        }
    }
    let mut first = [0; N_WEIGHTS];
    let mut states = Vec::with_capacity(TABLE);
    for (weight, first) in first.iter_mut().enumerate() {
        *first = states.len();
        states.extend((0..TABLE).filter(|&state| spread[state] == weight).map(|state| TABLE + state));
    }
    (states, first)
}
