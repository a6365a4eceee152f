-- Search. The program splits texts into words (search.rs), so the words here only have spaces between them.

-- The words of messages, by the ids of the messages. A message that has changed since may be found by its
-- former words, so whoever finds a message compares its text.
create virtual table message_words using fts5 (
    words, content = '', contentless_delete = 1, tokenize = "ascii tokenchars '+#='");

create table searchable (
    -- Which messages of a room are in message_words: those whose text was last changed after the room's
    -- version `since` and up to `version`.
    room_id integer primary key references rooms (id) on delete cascade,
    since integer not null,
    version integer not null
);
create index searchable_since on searchable (room_id) where since > 0;
