//! The tensors of version 1: their names, and one in serialisable form.

pub(crate) const CLUSTER_WEIGHTS: &str = "cluster_weights";
pub(crate) const CLUSTER_BIAS: &str = "cluster_bias";
pub(crate) const ADJACENCY_OFFSETS: &str = "adjacency_offsets";
pub(crate) const ADJACENCY_LABELS: &str = "adjacency_labels";
pub(crate) const ADJACENCY_WEIGHTS: &str = "adjacency_weights";
pub(crate) const LABEL_WEIGHTS: &str = "label_weights";
pub(crate) const LABEL_BIAS: &str = "label_bias";
pub(crate) const LABEL_PROJECTION: &str = "label_projection";
pub(crate) const LABEL_NAME_OFFSETS: &str = "label_name_offsets";
pub(crate) const LABEL_NAME_BYTES: &str = "label_name_bytes";

/// All tensor names of version 1.
pub(crate) const TENSORS: [&str; 10] = [
    CLUSTER_WEIGHTS,
    CLUSTER_BIAS,
    ADJACENCY_OFFSETS,
    ADJACENCY_LABELS,
    ADJACENCY_WEIGHTS,
    LABEL_WEIGHTS,
    LABEL_BIAS,
    LABEL_PROJECTION,
    LABEL_NAME_OFFSETS,
    LABEL_NAME_BYTES,
];

/// A Rust type that tensors are stored as.
pub(crate) trait Element: bytemuck::Pod {
    /// Its name in safetensors.
    const DTYPE: &'static str;
}

impl Element for f32 {
    const DTYPE: &'static str = "F32";
}
impl Element for u64 {
    const DTYPE: &'static str = "U64";
}
impl Element for u32 {
    const DTYPE: &'static str = "U32";
}
impl Element for u8 {
    const DTYPE: &'static str = "U8";
}

/// A tensor to write.
pub(crate) struct NamedTensor<'a> {
    pub(crate) name: &'static str,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: &'a [u8],
}

impl<'a> NamedTensor<'a> {
    pub(crate) fn new<T: Element>(name: &'static str, shape: &[usize], values: &'a [T]) -> Self {
        let bytes = bytemuck::cast_slice(values);
        Self { name, dtype: T::DTYPE, shape: shape.to_vec(), bytes }
    }

    pub(crate) fn file_name(&self) -> String {
        file_name(self.name)
    }
}

/// The name of the file that a tensor is written to.
pub(crate) fn file_name(tensor: &str) -> String {
    format!("{tensor}.safetensors")
}
