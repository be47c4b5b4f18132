//! Linear classifiers by dual coordinate descent (Hsieh et al., ICML 2008).
//!
//! Examples x_i with y_i = ±1 and costs c_i give the weights w and the bias b that minimise
//! ½ (‖w‖² + b²) + Σ_i c_i · max(0, 1 − y_i (w·x_i + b))². In the dual, w = Σ_i α_i y_i x_i and b = Σ_i α_i y_i with
//! α_i ≥ 0, and the best value of one α_i, the others as they are, is a matter of one product with x_i. Passes over the
//! examples in random order change each in turn; examples whose α_i is 0 and will stay so are left out of the
//! passes until the others are done.

use crate::scramble::scramble;

/// The examples of one classifier.
pub(super) struct Problem<'a> {
    /// Where each example's entries start and end.
    pub(super) spans: &'a [[usize; 2]],
    /// Of entries; below `num_columns`.
    pub(super) columns: &'a [u32],
    /// Of entries.
    pub(super) values: &'a [f32],
    pub(super) num_columns: usize,
    /// y, as 1 or −1.
    pub(super) signs: &'a [f32],
    /// c, above 0.
    pub(super) costs: &'a [f32],
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How far the dual's gradient may be from that of a minimum.
    pub(super) tolerance: f32,
    pub(super) max_passes: usize,
}

/// A classifier, and the memory that it is found in.
#[derive(Default)]
pub(super) struct Solver {
    /// w.
    pub(super) weights: Vec<f32>,
    /// b.
    pub(super) bias: f32,
    duals: Vec<f32>,
    /// The dual's second derivative by each α: ‖x‖² + 1 + 1 / 2c.
    curvatures: Vec<f32>,
    /// Examples, those that passes go over first.
    order: Vec<u32>,
}

/// The range of the dual's projected gradient in a pass.
struct Violations {
    least: f32,
    largest: f32,
}

impl<'a> Problem<'a> {
    fn row(&self, example: usize) -> (&'a [u32], &'a [f32]) {
        let [start, end] = self.spans[example];
        (&self.columns[start..end], &self.values[start..end])
    }
}

impl Solver {
    /// Finds the classifier; the same for the same seed.
    pub(super) fn solve(&mut self, problem: &Problem<'_>, limits: Limits, seed: u64) {
        self.reset(problem);
        let num_examples = problem.spans.len();
        let (mut active, mut bound, mut seed) = (num_examples, f32::INFINITY, seed);
        for _ in 0..limits.max_passes {
            shuffle(&mut self.order[..active], &mut seed);
            let violations = self.pass(problem, &mut active, bound);
            if violations.largest - violations.least > limits.tolerance {
                let positive = violations.largest > 0.0;
                bound = if positive { violations.largest } else { f32::INFINITY };
            } else if active == num_examples {
                return;
            } else {
                (active, bound) = (num_examples, f32::INFINITY);
            }
        }
    }

    fn reset(&mut self, problem: &Problem<'_>) {
        let num_examples = problem.spans.len();
        self.weights.clear();
        self.weights.resize(problem.num_columns, 0.0);
        self.bias = 0.0;
        self.duals.clear();
        self.duals.resize(num_examples, 0.0);
        self.order.clear();
        self.order.extend(0..num_examples as u32);
        self.curvatures.clear();
        self.curvatures.extend(problem.costs.iter().enumerate().map(|(example, cost)| {
            let square: f32 = problem.row(example).1.iter().map(|value| value * value).sum();
            square + 1.0 + 0.5 / cost
        }));
    }

    /// Visits the first `active` examples, and takes those out whose α is 0 with a gradient above `bound`.
    fn pass(&mut self, problem: &Problem<'_>, active: &mut usize, bound: f32) -> Violations {
        let mut violations = Violations { least: f32::INFINITY, largest: f32::NEG_INFINITY };
        let mut place = 0;
        while place < *active {
            let example = self.order[place] as usize;
            let (row, sign, dual) =
                (problem.row(example), problem.signs[example], self.duals[example]);
            let slack = 0.5 / problem.costs[example] * dual;
            let gradient = sign * self.margin(row) - 1.0 + slack;
            if dual == 0.0 && gradient > bound {
                *active -= 1;
                self.order.swap(place, *active);
                continue;
            }
            place += 1;
            let projected = if dual == 0.0 { gradient.min(0.0) } else { gradient };
            violations.least = violations.least.min(projected);
            violations.largest = violations.largest.max(projected);
            if projected != 0.0 {
                let better = (dual - gradient / self.curvatures[example]).max(0.0);
                self.duals[example] = better;
                self.add(row, sign * (better - dual));
            }
        }
        violations
    }

    /// w·x + b.
    fn margin(&self, (columns, values): (&[u32], &[f32])) -> f32 {
        // Four sums, so that an addition need not wait for the one before.
        let ((columns, last_columns), (values, last_values)) =
            (columns.as_chunks::<4>(), values.as_chunks::<4>());
        let mut lanes = [0.0; 4];
        for (columns, values) in columns.iter().zip(values) {
            for lane in 0..4 {
                lanes[lane] += self.weights[columns[lane] as usize] * values[lane];
            }
        }
        for (&column, value) in last_columns.iter().zip(last_values) {
            lanes[0] += self.weights[column as usize] * value;
        }
        (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + self.bias
    }

    fn add(&mut self, (columns, values): (&[u32], &[f32]), factor: f32) {
        for (&column, value) in columns.iter().zip(values) {
            self.weights[column as usize] += factor * value;
        }
        self.bias += factor;
    }
}

fn shuffle(order: &mut [u32], seed: &mut u64) {
    for last in (1..order.len()).rev() {
        *seed = scramble(*seed);
        // The high bits, scaled to the range: no division.
        let other = ((*seed >> 32) * (last as u64 + 1)) >> 32;
        order.swap(last, other as usize);
    }
}
