-- Search. The program splits texts into words (search.rs), so no dictionary is used.

-- The words of messages, by the ids of the messages. A message that has changed since may be found by its
-- former words, so whoever finds a message compares its text.
create table message_words (
    message_id bigint primary key,
    words tsvector not null
);
-- Rows are added in the background and in batches. The list of rows that are not in the tree yet is read by
-- each search, so it is short.
create index message_words_words on message_words using gin (words) with (gin_pending_list_limit = 512);

-- Which messages of a room are in message_words: those whose text was last changed after the room's version
-- `since` and up to `version`.
create table searchable (
    room_id bigint primary key references rooms (id) on delete cascade,
    since bigint not null,
    version bigint not null
);
create index searchable_since on searchable (room_id) where since > 0;
