-- Times are milliseconds since 1970-01-01 UTC, by this database's clock. Names are compared by their
-- code points wherever the database stands.

create function millis() returns bigint language sql volatile as
    $$ select floor(extract(epoch from clock_timestamp()) * 1000)::bigint $$;

-- The one row says to which history the changes that are made now belong, and what it was begun on;
-- and by what, together with the database's own number, this store is told from all others.
create table life (
    is_one boolean primary key default true check (is_one),
    history bigint not null,
    mark text not null,
    identity uuid not null
);
insert into life (history, mark, identity) values (0, '', gen_random_uuid());

-- One row per process that writes: the number of its last transaction, by which it learns whether
-- one whose answer was lost has been committed.
create table writers (
    id bigint primary key,
    batch bigint not null,
    seen_at bigint not null
);

-- One row per running server process. Its clients stand while its lease does.
create table nodes (
    id bigint primary key,
    lease_until bigint not null
);

-- One row per fake person, seeded or made when nobody was free.
create table users (
    id bigint generated always as identity primary key,
    name text collate "C" not null unique check (name = lower(name)), -- never changes
    email text collate "C" not null unique,
    display_name text,                       -- what they choose to be called, if anything
    display_key text collate "C",            -- display_name without regard to case
    -- The same for all names that look alike in small letters, and in capitals.
    display_look text collate "C",
    display_look_capitals text collate "C",
    arrived_at bigint,                       -- when somebody was this user first; null: not a person yet
    traced_at bigint,                        -- when the first stored row named them; never handed out after
    free boolean not null default true,      -- may be handed to a newcomer
    gone_at bigint,                          -- untouched, not free, nobody there since
    shuffle bigint not null,                 -- random, so that a random free user is found by index
    password_hash text,                      -- a PHC string, of whoever keeps their name
    kept_at bigint,                          -- since when; never handed out, and their display name is theirs
    moderator_at bigint,                     -- since when they are a moderator
    muted_at bigint,                         -- since when nothing they write is taken
    banned_at bigint                         -- since when nobody can be them any more
);
create index users_free on users (shuffle) where free;
create index users_gone on users (gone_at) where gone_at is not null;
create index users_people on users (name) where arrived_at is not null;
create unique index users_display_look on users (display_look) where display_look is not null;
create unique index users_display_look_capitals on users (display_look_capitals)
    where display_look_capitals is not null;
create index users_display_key on users (display_key) where display_key is not null;
-- Either look of a user name, which is of small letters and digits.
create index users_look on users (
    (replace(replace(replace(replace(name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l')));

-- Somebody who keeps their name has signed in, known by the token in their cookie. It is good until
-- it was not seen for a while: a client came or went by it. Its clients end with it.
create table sessions (
    id bigint generated always as identity primary key, -- never given again
    user_id bigint not null references users (id) on delete cascade,
    token_hash bytea not null unique,
    made_at bigint not null,
    seen_at bigint not null
);
create index sessions_user on sessions (user_id);
create index sessions_seen on sessions (seen_at);

-- This user is (or was, less than a day ago) here, on that node. Found again by its token.
create table clients (
    id bigint generated always as identity primary key, -- never given again
    user_id bigint not null references users (id) on delete cascade,
    guest boolean not null default true,
    session_id bigint references sessions (id) on delete cascade, -- null: a guest
    node_id bigint not null,
    visit bigint not null default 0,         -- grows each time somebody comes back to it
    token_hash bytea not null unique,
    arrived_at bigint not null,
    left_at bigint,                          -- null: here now
    cut_off boolean not null default false   -- gone because its node has ended
);
-- A guest is one client; people who keep their name may have several.
create unique index clients_guest on clients (user_id) where guest;
create index clients_here on clients (arrived_at, id) where left_at is null;
create index clients_node on clients (node_id) where left_at is null;
create index clients_left on clients (left_at) where left_at is not null;
create index clients_session on clients (session_id) where session_id is not null;
create index clients_user on clients (user_id);
-- Of several clients of a person the one that has been here longest stands for them.
create index clients_person on clients (user_id, arrived_at, id) where left_at is null;

-- A group, or the private room of a pair. version counts its stored changes.
create table rooms (
    id bigint primary key,                   -- random
    kind text not null check (kind in ('group', 'private')),
    name text,                               -- of a group, as written
    -- Of a group, without regard to case. Of one for moderators alone it begins with "!", which no
    -- name has, so that others may have a group of that name and learn nothing; of one that is
    -- there for nobody it is "~" and the id.
    name_key text collate "C" unique,
    position bigint,                         -- the order of the default groups; null for others
    user_low bigint references users (id) on delete cascade,
    user_high bigint references users (id) on delete cascade,
    version bigint not null default 0,
    history bigint not null default 0,       -- the history of the last change
    people bigint not null default 0,        -- how many look at it, by however many clients each; kept by a trigger
    created_at bigint not null,
    restricted_at bigint,                    -- of a group: since when it is for moderators alone
    removed_at bigint,                       -- of a group: since when it is there for nobody
    unique (user_low, user_high),
    check (case kind
        when 'group' then name is not null and name_key is not null and user_low is null and user_high is null
        else name is null and name_key is null and user_low is not null and user_high is not null
            and user_low < user_high
    end)
);
create index rooms_high on rooms (user_high) where user_high is not null;
create index rooms_default on rooms (position) where position is not null;
-- The groups with the most people first, without looking through all of them.
create index rooms_busiest on rooms (people desc, name_key) where kind = 'group';
create index rooms_restricted on rooms (name_key) where restricted_at is not null;
create index rooms_closed on rooms (id) where restricted_at is not null or removed_at is not null;

-- From which version on a room's changes belong to a history. A version of a history is known here
-- only up to where the next one begins, which tells a restored database's from others.
create table room_histories (
    room_id bigint not null references rooms (id) on delete cascade,
    first_version bigint not null,
    history bigint not null,
    primary key (room_id, first_version)
);
create unique index room_histories_history on room_histories (room_id, history);

-- One message. Within a room, order by id is order by made: the id is taken while the room is locked.
create table messages (
    id bigint generated always as identity primary key,
    room_id bigint not null references rooms (id) on delete cascade,
    user_id bigint not null references users (id) on delete cascade,
    author_name text not null,               -- the name it was written under
    text text not null,
    key uuid,                                -- the browser's, unique per author
    made bigint not null,                    -- the room's version that made it
    changed bigint not null,                 -- the room's version of its last change
    worded bigint not null,                  -- the room's version of the last change of what it says
    created_at bigint not null,
    edited_at bigint,                        -- when its text was changed last
    deleted_at bigint,                       -- since then its text is shown to nobody
    deleted_by bigint,                       -- who deleted it, if not its author
    -- Of each emoji how many there are and the first names, as everybody is shown them: a JSON array
    -- of [emoji, count, [name, ...]] in the order in which each was used first. Null for none.
    reactions text
);
create index messages_room on messages (room_id, id);
create unique index messages_made on messages (room_id, made);
create index messages_changed on messages (room_id, changed);
create index messages_worded on messages (room_id, worded);
create unique index messages_key on messages (user_id, key) where key is not null;

-- This user reacted to the message with this emoji.
create table reactions (
    id bigint generated always as identity primary key, -- grows: the first come first
    message_id bigint not null references messages (id) on delete cascade,
    room_id bigint not null,                 -- the message's
    user_id bigint not null references users (id) on delete cascade,
    emoji text not null,
    name text not null,                      -- the name the user had then
    created_at bigint not null,
    unique (message_id, emoji, user_id)
);
create index reactions_first on reactions (message_id, emoji, id);
create index reactions_of_message on reactions (message_id, id);
create index reactions_mine on reactions (user_id, room_id, message_id);

-- The user belongs to the room, for good: they wrote there, or it is a private room with messages.
-- The columns from with_id on serve the unread marks of private rooms.
create table users_subscribed (
    user_id bigint not null references users (id) on delete cascade,
    room_id bigint not null references rooms (id) on delete cascade,
    since bigint not null,
    with_id bigint references users (id) on delete cascade, -- the other person of a private room
    last_message_id bigint not null default 0,
    read_message_id bigint not null default 0,
    unread bigint not null default 0,        -- messages of the other after read_message_id, up to 100
    primary key (user_id, room_id)
);
create index users_subscribed_mine on users_subscribed (user_id, (unread > 0), last_message_id)
    where with_id is not null;
create index users_subscribed_groups on users_subscribed (user_id, since) where with_id is null;
create index users_subscribed_room on users_subscribed (room_id);
create index users_subscribed_with on users_subscribed (with_id) where with_id is not null;

-- The client is looking at the room right now and gets its pushes.
create table clients_active (
    client_id bigint primary key references clients (id) on delete cascade,
    room_id bigint not null references rooms (id) on delete cascade,
    user_id bigint not null,                 -- whose client it is
    entered_at bigint not null
);
create index clients_active_room on clients_active (room_id, entered_at, client_id);
create index clients_active_person on clients_active (room_id, user_id, entered_at, client_id);

-- How many people look at a room. It is locked before the look at who else is there, so that of two
-- nodes at once the second sees what the first has done.
create function count_whoever_comes() returns trigger language plpgsql as $$
begin
    perform 1 from rooms where id = new.room_id for no key update;
    if not exists (select 1 from clients_active a where a.room_id = new.room_id
        and a.user_id = new.user_id and a.client_id <> new.client_id) then
        update rooms set people = people + 1 where id = new.room_id;
    end if;
    return null;
end $$;
-- Several of one person's clients may go at once, who is counted once.
create function count_whoever_goes() returns trigger language plpgsql as $$
begin
    perform 1 from rooms where id in (select room_id from gone) order by id for no key update;
    update rooms r set people = r.people - g.people from (
        select d.room_id, count(distinct d.user_id) as people from gone d
        where not exists (select 1 from clients_active a
            where a.room_id = d.room_id and a.user_id = d.user_id)
        group by d.room_id) g
    where r.id = g.room_id;
    return null;
end $$;
create trigger clients_active_enter after insert on clients_active
    for each row execute function count_whoever_comes();
create trigger clients_active_leave after delete on clients_active
    referencing old table as gone for each statement execute function count_whoever_goes();

-- An address that makes one visitor a moderator.
create table admin_links (
    token_hash bytea primary key,
    made_at bigint not null
);

-- What a moderator did, in words that say what was meant then.
create table deeds (
    id bigint generated always as identity primary key,
    at bigint not null,
    moderator_id bigint,                     -- null: on the server's command line
    moderator text not null,                 -- how the moderator was called
    deed text not null
);
