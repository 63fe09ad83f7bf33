#pragma once
#include <string>
#include <string_view>

namespace yumoe {

// A field's type as people read it: "Box<<T as Config>::RuntimeCall>" is RuntimeCall,
// "T::AccountId" is AccountId, "Vec<u8>" is Bytes.
std::string plain_type_name(std::string_view type_name);

}  // namespace yumoe
