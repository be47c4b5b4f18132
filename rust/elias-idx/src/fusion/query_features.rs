//! The sparse features of one query, to be multiplied with many sparse rows.

/// A query's features by number; all zeros between two queries.
#[derive(Default)]
pub(crate) struct QueryFeatures {
    values: Vec<f32>,
    set: Vec<usize>,
}

impl QueryFeatures {
    /// Takes the features of the next query, each below `num_features` and once.
    pub(crate) fn set(
        &mut self,
        num_features: usize,
        features: impl Iterator<Item = (usize, f32)>,
    ) {
        self.values.resize(num_features, 0.0);
        for column in self.set.drain(..) {
            self.values[column] = 0.0;
        }
        for (column, value) in features {
            self.values[column] = value;
            self.set.push(column);
        }
    }

    /// The product with a sparse row.
    pub(crate) fn dot(&self, (columns, values): (&[u32], &[f32])) -> f32 {
        columns
            .iter()
            .zip(values)
            .map(|(&column, value)| self.values[column as usize] * value)
            .sum()
    }
}
