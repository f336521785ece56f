#include "orrery/error.hpp"
#include "orrery/generate.hpp"

namespace orrery {

Recipe parse_recipe(std::string_view text) {
  for (const Recipe recipe : {Recipe::normal, Recipe::counting}) {
    if (text == to_string(recipe)) return recipe;
  }
  refuse("'", text, "' is no recipe of inputs; there are: normal, counting");
}

std::string_view to_string(Recipe recipe) {
  return recipe == Recipe::normal ? "normal" : "counting";
}

}  // namespace orrery
