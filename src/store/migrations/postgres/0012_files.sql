-- Files and pictures. Their bytes are not in the database, but in objects that are named by their hashes.

-- A file that somebody has uploaded, and the message that has it.
create table files (
    id bigint primary key,                   -- random
    room_id bigint not null references rooms (id) on delete cascade,
    user_id bigint not null references users (id) on delete cascade,
    message_id bigint references messages (id) on delete cascade, -- null until it is sent
    name text not null,
    media_type text not null,                -- of a picture that was decoded; otherwise of any bytes
    bytes bigint not null,
    hash text collate "C" not null,          -- the SHA-256 of the object, in hexadecimal digits
    width bigint,                            -- of a picture, as it is shown
    height bigint,
    thumbnail text collate "C",              -- the hash of the smaller picture, if there is one
    made_at bigint not null
);
create index files_room on files (room_id);
create index files_user on files (user_id);
create index files_message on files (message_id) where message_id is not null;
create index files_waiting on files (made_at) where message_id is null;
create index files_hash on files (hash);
create index files_thumbnail on files (thumbnail) where thumbnail is not null;

-- The object may have no file any more. Once it is claimed, it is being deleted, and no file gets it.
create table unused_objects (
    hash text collate "C" primary key,
    since bigint not null,
    claimed_at bigint
);

create function files_deleted() returns trigger language plpgsql as $$
begin
    insert into unused_objects (hash, since)
    select hash, (extract(epoch from clock_timestamp()) * 1000)::bigint
    from unnest(array[old.hash, old.thumbnail]) as hash where hash is not null
    on conflict do nothing;
    return null;
end $$;
create trigger files_deleted after delete on files for each row execute function files_deleted();

-- The files of a message, as it shows them: copied from `files`, so that a page is read without them.
alter table messages add column files text;
