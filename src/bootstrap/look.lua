local function look(request, scope, was_seen)
  local headers = request:headers()
  headers:replace("x-tidegate-scope", scope)
  if not was_seen then
    request:clearRouteCache()
    request:metadata()    -- looks
    if request:streamInfo():routeName() ~= "" then return end
  end
  local segment = (headers:get(":path") or ""):match("^/([^/?]+)")
  if not segment or scope:find("/", 1, true) then return end
  headers:replace("x-tidegate-scope", scope .. "/" .. segment)
  request:clearRouteCache()
end
