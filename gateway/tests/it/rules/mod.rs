//! What the project promises about itself: imports, pages, switches, documents.

mod architecture;
mod contract_documents;
mod imports;
mod requirements;
mod switches;
