-- Moderators, what they did, and whom it affects.

alter table users add column moderator_at integer; -- since when they are a moderator
alter table users add column muted_at integer;     -- since when everything they write is refused
alter table users add column banned_at integer;    -- since when nobody can connect as this user

-- Of a group: since when it is restricted to moderators. Its name_key then begins with "!", which no
-- name contains, so that other people can create a group of that name and learn nothing.
alter table rooms add column restricted_at integer;
-- When it was removed; its name_key then is "~" and its id.
alter table rooms add column removed_at integer;
create index rooms_restricted on rooms (name_key) where restricted_at is not null;
create index rooms_closed on rooms (id) where restricted_at is not null or removed_at is not null;

alter table messages add column deleted_by integer; -- the moderator who deleted it, if not its author

create table admin_links (
    -- An address that makes one visitor a moderator.
    token_hash blob primary key,
    made_at integer not null
) without rowid;

create table deeds (
    -- What a moderator did, in words that say what was meant then.
    id integer primary key autoincrement,
    at integer not null,
    moderator_id integer,                    -- null: on the server's command line
    moderator text not null,                 -- how the moderator was called
    deed text not null
);
