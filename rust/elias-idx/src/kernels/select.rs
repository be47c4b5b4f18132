//! The k-th largest of many values, by bisection.
//!
//! Floats are in the order of their bits (with the sign put right), so halving the range of bits
//! that holds the result takes at most 32 counts of the values at or above a pivot. Counting has no
//! branches and vectorises. Mostly it ends much sooner: as soon as exactly k values reach the pivot,
//! the result is the least of these.

pub(super) use super::generic::Portable;
use super::generic::{Vector, larger, tree};

/// See [`super::Kernels::kth_largest`], which checks `k`.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn kth_largest<V: Vector>(values: &[f32], k: usize) -> f32 {
    // At least k values reach `low`, and fewer reach anything above `high`.
    let (mut low, mut high) = (key(least_from(values, f32::NEG_INFINITY)), key(largest(values)));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let pivot = value(middle);
        let reaching = count(values, pivot);
        if reaching == k {
            return least_from(values, pivot);
        }
        if reaching > k {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    value(low)
}

const SIGN: u32 = 1 << 31;

/// An integer that is in the order of the floats.
#[inline(always)]
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The float of a key.
#[inline(always)]
fn value(key: u32) -> f32 {
    f32::from_bits(if key & SIGN == 0 { !key } else { key ^ SIGN })
}

/// Lanes of partial results, enough for any vector.
const WIDE: usize = 64;

/// See [`super::Kernels::count_from`].
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn count_from<V: Vector>(values: &[f32], least: f32) -> usize {
    count(values, least)
}

/// How many values are `pivot` or more.
#[inline(always)]
fn count(values: &[f32], pivot: f32) -> usize {
    // In blocks, as 32-bit counts are twice as fast and must not overflow.
    let mut count = 0;
    for block in values.chunks(1 << 20) {
        let mut lanes = [0_u32; WIDE];
        let chunks = block.chunks_exact(WIDE);
        for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane = u32::from(value >= pivot);
        }
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += u32::from(value >= pivot);
            }
        }
        for lane in lanes {
            count += lane as usize;
        }
    }
    count
}

/// The least of the values that are `pivot` or more.
#[inline(always)]
fn least_from(values: &[f32], pivot: f32) -> f32 {
    let mut lanes = [f32::INFINITY; WIDE];
    let chunks = values.chunks_exact(WIDE);
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = if value >= pivot { value } else { *lane };
    }
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value >= pivot && value < *lane { value } else { *lane };
        }
    }
    tree(lanes, |one, other| if one < other { one } else { other })
}

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; WIDE];
    let chunks = values.chunks_exact(WIDE);
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = value;
    }
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(value, *lane);
        }
    }
    tree(lanes, larger)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::kernels::Kernels;

    fn check(values: &[f32], k: usize) -> Result<(), TestCaseError> {
        let mut sorted = values.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let expected = sorted[k - 1];
        let reaching = values.iter().filter(|value| **value >= expected).count();
        for kernels in Kernels::available() {
            prop_assert_eq!(kernels.kth_largest(values, k), expected);
            prop_assert_eq!(kernels.count_from(values, expected), reaching);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_kth_largest_is_that_of_sorting(
            values in prop::collection::vec(any::<f32>(), 1..600),
            k in any::<prop::sample::Index>(),
        ) {
            check(&values, k.index(values.len()) + 1)?;
        }

        #[test]
        fn the_kth_largest_may_be_one_of_many(
            values in prop::collection::vec(
                prop::sample::select(vec![0.0, -0.0, 1e-45, -1e-45, 0.5, 1.0, f32::INFINITY, f32::NEG_INFINITY]),
                1..600,
            ),
            k in any::<prop::sample::Index>(),
        ) {
            check(&values, k.index(values.len()) + 1)?;
        }
    }

    #[test]
    fn long_slices_are_counted_whole() {
        let values: Vec<f32> = (0..(1 << 21) + 100).map(|i| (i % 1000) as f32).collect();
        let expected = values.iter().filter(|value| **value >= 10.0).count();
        for kernels in Kernels::available() {
            assert_eq!(kernels.count_from(&values, 10.0), expected);
            assert_eq!(kernels.kth_largest(&values, expected), 10.0);
        }
    }
}
