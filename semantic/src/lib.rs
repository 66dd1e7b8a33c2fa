//! Vectors, similarity, embedders and stores: what the semantic cache, the semantic router and knowledge stand on.
//! Knows nothing of chats or of OpenAI. Filled by a later issue; `docs/architecture.md` has its place in the house.
