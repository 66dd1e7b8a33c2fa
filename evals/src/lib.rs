//! One measurement per feature that can be more or less right. Filled with the features it measures.
