//! The project's rules about itself: imports, pages and their English, switches, contract documents.

mod architecture;
mod contract_documents;
mod imports;
mod plain_english;
mod protocol_page;
mod redis_rights;
mod requirements;
mod switches;
